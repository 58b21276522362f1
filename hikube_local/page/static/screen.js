// A machine's screen, by VNC.
import { command, el, flag, put, socket, t, tell } from './base.js';

const KEYS = {
  'Ctrl+Alt+Del': null,
  'Ctrl+Alt+F1': [0xffe3, 0xffe9, 0xffbe],
  'Ctrl+Alt+F2': [0xffe3, 0xffe9, 0xffbf],
  'Ctrl+Alt+F7': [0xffe3, 0xffe9, 0xffc4],
  'Alt+Tab': [0xffe9, 0xff09],
  'Alt+F4': [0xffe9, 0xffc1],
  Escape: [0xff1b],
  Tab: [0xff09],
  F2: [0xffbf],
  F12: [0xffc9],
};

export function inside(body, { namespace, name, base, window: own }) {
  const place = el('div', { class: 'screen', tabindex: '0', role: 'group', 'aria-label': t('Screen of {name}', { name }) });
  const state = el('p', { class: 'quiet', role: 'status' }, t('Connecting…'));
  const menu = el('select', { 'aria-label': t('Send keys') }, el('option', { value: '' }, t('Send keys…')), Object.keys(KEYS).map((k) => el('option', { value: k }, k)));
  const text = el('input', { type: 'text', 'aria-label': t('Text to type into the guest'), placeholder: t('Text to type'), autocomplete: 'off' });
  const type = el('form', { class: 'bar' }, text, el('button', { type: 'submit' }, t('Type it')));
  const copied = el('button', { type: 'button', hidden: true }, t("Copy the guest's clipboard"));
  put(body, el('div', { class: 'bar' }, menu, type,
    el('button', { type: 'button', onclick: () => place.requestFullscreen().catch(() => {}) }, t('Full screen')),
    own ? null : el('a', { href: `${base}/screen/window`, target: '_blank', rel: 'noopener' }, t('Own window')), copied), state, place, own ? null : command(`hikube-local vnc ${name}${flag(namespace)}`));
  let rfb, closed = false, delay = 500, timer;

  const press = (keys) => {
    for (const k of keys) rfb.sendKey(k, null, true);
    for (const k of [...keys].reverse()) rfb.sendKey(k, null, false);
  };
  menu.addEventListener('change', () => {
    const wanted = menu.value;
    menu.value = '';
    if (!rfb || !wanted) return;
    if (KEYS[wanted]) press(KEYS[wanted]);
    else rfb.sendCtrlAltDel();
    rfb.focus();
  });
  type.addEventListener('submit', (e) => {
    e.preventDefault();
    if (!rfb) return;
    for (const c of text.value) {
      const point = c.codePointAt(0);
      press([point < 0x100 ? point : 0x1000000 + point]);
    }
    text.value = '';
    rfb.focus();
  });

  async function connect() {
    const { default: RFB } = await import('./vendor/novnc.js');
    if (closed) return;
    const { url, protocols } = socket(`/apis/subresources.kubevirt.io/v1/namespaces/${namespace}/virtualmachineinstances/vm-instance-${name}/vnc`, 'plain.kubevirt.io');
    put(place);
    rfb = new RFB(place, url, { wsProtocols: protocols, shared: true });
    rfb.scaleViewport = true;
    rfb.background = '#000';
    rfb.addEventListener('connect', () => {
      delay = 500;
      place.dataset.connected = 'yes';
      put(state, t('Connected. Click into the screen to type.'));
    });
    rfb.addEventListener('clipboard', ({ detail }) => {
      copied.hidden = false;
      copied.onclick = () => navigator.clipboard.writeText(detail.text).then(() => tell(t('Copied')), () => tell(t('The browser does not let this page copy: select the text instead'), true));
    });
    rfb.addEventListener('disconnect', () => {
      rfb = null;
      delete place.dataset.connected;
      if (closed) return;
      put(state, t('There is no screen now: the machine is off, or has none. Trying again.'));
      timer = setTimeout(connect, delay);
      delay = Math.min(5000, delay * 2);
    });
  }
  connect();
  return {
    update() {},
    close() {
      closed = true;
      clearTimeout(timer);
      rfb?.disconnect();
    },
  };
}
