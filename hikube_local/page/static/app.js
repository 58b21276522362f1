// The shell: who is signed in, which view is shown, and whether what it shows is live.
import { APPS, Live, el, forget, health, isLive, language, put, request, safe, say, signIn, signOut, signedIn, t, tell } from './base.js';

const main = document.getElementById('main');
const VIEWS = {
  machines: ['Machines', () => import('./list.js')],
  disks: ['Disks', () => import('./list.js')],
  usage: ['Usage', () => import('./usage.js')],
  network: ['Network', () => import('./network.js')],
  tests: ['Tests', () => import('./tests.js')],
};
const lives = {};
let leave = () => {};
let turn = 0;
let inside = false; // whether somebody is signed in
// What a namespace and a machine may be called: nothing else is part of an address or of a command.
const NAME = /^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$/;

// One watch for each kind, whoever shows it. Where a role has no list of all namespaces, the one of the link is shown.
export function all(kind) {
  const namespace = localStorage.getItem('hikube-local.namespace');
  const where = namespace ? `/namespaces/${encodeURIComponent(namespace)}` : '';
  return (lives[kind] ??= new Live(`${APPS}${where}/${kind}`));
}

function route() {
  const [path, query = ''] = location.hash.replace(/^#\/?/, '').split('?');
  const [view = '', ...rest] = path.split('/').map(decodeURIComponent);
  if (!rest.slice(0, 2).every((name) => NAME.test(name))) throw new Error(t('There is no such view'));
  return { view: Object.hasOwn(VIEWS, view) ? view : 'machines', rest, query: new URLSearchParams(query) };
}

async function show(moved) {
  const mine = ++turn;
  if (!inside) return;
  leave();
  leave = () => {};
  put(main);
  try {
    await drawn(mine);
  } catch (e) {
    if (mine !== turn) return;
    put(main, el('h1', { tabindex: '-1' }, t('This cannot be shown')), el('p', {}, safe(e.message)));
  }
  if (mine !== turn) return;
  const head = main.querySelector('h1');
  if (head) {
    const tab = main.querySelector('nav a[aria-current]');
    document.title = [head.textContent, tab?.textContent, 'hikube-local'].filter(Boolean).join(' · ');
    if (moved) head.focus();
  }
}

async function drawn(mine) {
  const { view, rest, query } = route();
  const one = view === 'machines' && rest.length > 1;
  document.body.classList.toggle('bare', rest[3] === 'window');
  for (const link of document.querySelectorAll('nav.views a')) {
    if (link.dataset.view === view) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  const module = await (one ? import('./machine.js') : VIEWS[view][1]());
  if (mine !== turn) return;
  const close = await module.show(main, one ? rest : [view, ...rest], query);
  if (mine !== turn) close?.();
  else leave = close ?? leave;
}

function shell() {
  const links = Object.entries(VIEWS).map(([name, [word]]) => el('li', {}, el('a', { href: `#/${name}`, 'data-view': name }, t(word))));
  const live = el('span', { id: 'live', role: 'status' });
  const scheme = el('select', { 'aria-label': t('Colours') }, [['', 'as the system'], ['light', 'light'], ['dark', 'dark']].map(([value, word]) => el('option', { value }, t(word))));
  scheme.value = localStorage.getItem('hikube-local.scheme') ?? '';
  const paint = () => {
    if (scheme.value) document.documentElement.dataset.scheme = scheme.value;
    else delete document.documentElement.dataset.scheme;
    localStorage.setItem('hikube-local.scheme', scheme.value);
    window.dispatchEvent(new Event('colours'));
  };
  scheme.addEventListener('change', paint);
  paint();
  const out = el('button', { type: 'button', onclick: async () => { await signOut(); location.reload(); } }, t('Sign out'));
  put(
    document.getElementById('top'),
    el('a', { class: 'name', href: '#/machines' }, 'hikube-local'),
    el('nav', { class: 'views', 'aria-label': t('Views') }, el('ul', {}, links)),
    el('div', { class: 'push' }, live, scheme, out),
  );
  const mark = () => {
    live.className = isLive() ? 'good' : 'bad';
    say(live, isLive() ? t('● live') : t('▲ not live: connection lost, trying again (was serve started anew? run hikube-local ui)'));
  };
  health.addEventListener('change', mark);
  mark();
  all('vminstances'); // whatever is shown: whether it is live is known by this one
}

function outside(message) {
  inside = false;
  forget();
  for (const kind of Object.keys(lives)) {
    lives[kind].close();
    delete lives[kind];
  }
  for (const dialog of document.querySelectorAll('dialog')) dialog.close();
  turn++;
  leave();
  leave = () => {};
  put(document.getElementById('top'), el('span', { class: 'name' }, 'hikube-local'));
  const head = el('h1', { tabindex: '-1' }, t('Not signed in'));
  put(main, head, el('p', {}, message || t('This link was used, is too old, or the server was started again.')), el('p', {}, t('In a terminal:'), ' ', el('code', {}, 'hikube-local ui')));
  head.focus();
}

async function begin() {
  await language();
  const skip = document.querySelector('.skip');
  skip.textContent = t('Skip to content');
  skip.addEventListener('click', (e) => {
    e.preventDefault();
    main.focus();
  });
  // A link that is pasted into this very tab changes the fragment alone.
  addEventListener('hashchange', () => (new URLSearchParams(location.hash.slice(1)).has('code') ? location.reload() : show(true)));
  const given = new URLSearchParams(location.hash.slice(1));
  const code = given.get('code');
  if (code) {
    // Out of the address bar and the history before anything else.
    history.replaceState(null, '', `${location.pathname}#${given.get('to') ?? '/machines'}`);
    if (given.has('namespace')) localStorage.setItem('hikube-local.namespace', given.get('namespace'));
    else localStorage.removeItem('hikube-local.namespace');
    try {
      await signIn(code);
    } catch (e) {
      return outside(t(e.message));
    }
  }
  if (!signedIn()) return outside();
  inside = true;
  health.addEventListener('out', () => inside && outside());
  shell();
  await show(false);
}

export async function act(words, method, path, body) {
  try {
    await request(method, path, body);
    tell(words);
    return true;
  } catch (e) {
    tell(e.message, true);
    return false;
  }
}

begin();
