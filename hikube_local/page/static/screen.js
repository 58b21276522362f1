// A machine's screen, by VNC.
import { ask, command, el, flag, put, safe, socket, subresource, t, tell } from './base.js';

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

  place.addEventListener('focus', () => rfb?.focus());
  // Before noVNC takes it: the way out for who has a keyboard alone.
  place.addEventListener('keydown', (e) => {
    if (!e.ctrlKey || e.code !== 'BracketRight') return;
    e.preventDefault();
    e.stopPropagation();
    menu.focus();
  }, true);

  const again = () => {
    put(state, t('There is no screen now: the machine is off, or has none. Trying again.'));
    timer = setTimeout(() => connect().catch(again), delay);
    delay = Math.min(15000, delay * 2);
  };

  async function connect() {
    clearTimeout(timer);
    const { default: RFB } = await import('./vendor/novnc.js');
    if (closed) return;
    const { url, protocols } = socket(subresource(namespace, 'virtualmachineinstances', name, 'vnc'), 'plain.kubevirt.io');
    put(place);
    rfb = new RFB(place, url, { wsProtocols: protocols, shared: true });
    rfb.scaleViewport = true;
    rfb.background = '#000';
    rfb.addEventListener('connect', () => {
      delay = 500;
      place.dataset.connected = 'yes';
      put(state, t('Connected. Keys go to the guest once the screen is focused; Ctrl+] leaves it.'));
    });
    rfb.addEventListener('clipboard', ({ detail }) => {
      copied.hidden = false;
      // A guest may lay anything there: it is seen before it is taken.
      copied.onclick = async () => {
        if (!(await ask({ title: t("Copy the guest's clipboard"), text: safe(detail.text), yes: t('Copy') }))) return;
        navigator.clipboard.writeText(detail.text).then(() => tell(t('Copied')), () => tell(t('The browser does not let this page copy: select the text instead'), true));
      };
    });
    rfb.addEventListener('disconnect', () => {
      rfb = null;
      delete place.dataset.connected;
      if (!closed) again();
    });
  }
  connect().catch(again);
  let on = '';
  return {
    update(now) {
      const is = now.status?.printableStatus;
      if (is === 'Running' && on && on !== is && !rfb) {
        delay = 500;
        connect().catch(again);
      }
      on = is;
    },
    close() {
      closed = true;
      clearTimeout(timer);
      rfb?.disconnect();
    },
  };
}
