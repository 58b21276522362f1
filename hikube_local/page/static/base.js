// What every view stands on: elements, words, times, requests, watches. Whatever came from elsewhere is shown as text.

// Elements

export function el(tag, props = {}, ...children) {
  const svg = props.svg;
  const node = svg ? document.createElementNS('http://www.w3.org/2000/svg', tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name === 'svg' || value === undefined || value === null || value === false) continue;
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? '' : value);
  }
  put(node, ...children);
  return node;
}

export function put(node, ...children) {
  node.replaceChildren(...children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false));
  return node;
}

const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;
const LONGEST = 2000;

// Foreign text, all of it: what would turn it around, hide in it or break its line is shown instead.
export const shown = (text) => text.replace(HIDDEN, (c) => '\\u' + c.charCodeAt(0).toString(16).padStart(4, '0'));

// The same, cut where it is long.
export function safe(value) {
  const text = shown(String(value ?? ''));
  return text.length > LONGEST ? text.slice(0, LONGEST) + '…' : text;
}

export const bdi = (value) => el('bdi', {}, safe(value));

export function table(heads, rows, label) {
  const head = el('div', { role: 'row', class: 'head' }, heads.map((h) => el('span', { role: 'columnheader' }, h)));
  const body = el('div', { role: 'rowgroup' }, rows);
  return el('div', { role: 'table', 'aria-label': label }, el('div', { role: 'rowgroup' }, head), body);
}

export const row = (...cells) => el('div', { role: 'row', class: 'row' }, cells.map((c) => cell(c)));

export const cell = (content, kind) => el('span', { role: 'cell', class: kind }, content);

export const health = new EventTarget(); // `change`: live or not; `out`: nobody is signed in any more

// Words

let words = {};

export async function language(wanted = navigator.languages) {
  const first = (wanted[0] ?? 'en').slice(0, 2);
  if (first === 'fr') {
    words = (await import('./fr.js')).default;
    document.documentElement.lang = 'fr';
  }
}

export function t(text, values = {}) {
  return (words[text] ?? text).replace(/\{(\w+)\}/g, (all, name) => (name in values ? values[name] : all));
}

export function age(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  if (s < 120) return `${s}s`;
  if (s < 10800) return `${Math.floor(s / 60)}m`;
  if (s < 172800) return `${Math.floor(s / 3600)}h`;
  return `${Math.floor(s / 86400)}d`;
}

export const since = (timestamp) => (Date.now() - Date.parse(timestamp)) / 1000;

export function size(bytes) {
  for (const [unit, factor] of [['Ti', 2 ** 40], ['Gi', 2 ** 30], ['Mi', 2 ** 20], ['Ki', 2 ** 10]]) {
    if (bytes >= factor) return `${(bytes / factor).toFixed(bytes % factor ? 1 : 0)}${unit}`;
  }
  return String(Math.round(bytes));
}

// A short word on what was done; what went wrong stays until it is closed.
export function tell(text, wrong = false) {
  const close = wrong ? el('button', { type: 'button', 'aria-label': t('Close'), onclick: () => note.remove() }, '×') : null;
  const note = el('p', { class: wrong ? 'wrong' : null, role: wrong ? 'alert' : null }, close, safe(text));
  const place = document.getElementById('told');
  place.append(note);
  if (!wrong) setTimeout(() => note.remove(), 6000);
  while (place.children.length > 5) place.firstChild.remove();
}

// The same text again is no news to whoever hears it.
export function say(node, text) {
  if (node.textContent !== text) put(node, text);
}

export function command(line) {
  const button = el('button', { type: 'button', 'aria-label': t('Copy: {what}', { what: line }) }, t('Copy'));
  button.addEventListener('click', async () => {
    try {
      await navigator.clipboard.writeText(line);
      tell(t('Copied'));
    } catch {
      tell(t('The browser does not let this page copy: select the text instead'), true);
    }
  });
  return el('div', { class: 'command' }, el('code', {}, safe(line)), button);
}

// A question. `word`: what has to be typed before it can be answered with yes.
export function ask({ title, text, yes, word = '' }) {
  return new Promise((done) => {
    const field = word ? el('input', { type: 'text', 'aria-label': t('Name'), autocomplete: 'off' }) : null;
    const sure = el('button', { type: 'submit', class: 'danger', disabled: Boolean(word) }, yes);
    const no = el('button', { type: 'button', onclick: () => dialog.close() }, t('Cancel'));
    const more = word ? el('p', {}, t('Type the name to go on:'), ' ', bdi(word)) : null;
    const form = el('form', { method: 'dialog' }, el('h2', { id: 'asked' }, title), el('p', {}, text), more, field);
    form.append(el('div', { class: 'bar' }, sure, no));
    const dialog = el('dialog', { 'aria-labelledby': 'asked' }, form);
    field?.addEventListener('input', () => { sure.disabled = field.value !== word; });
    form.addEventListener('submit', (e) => {
      e.preventDefault();
      if (!sure.disabled) dialog.close('yes');
    });
    dialog.addEventListener('close', () => {
      dialog.remove();
      done(dialog.returnValue === 'yes');
    });
    document.body.append(dialog);
    dialog.showModal();
    (field ?? no).focus();
  });
}

// The session: a cookie that scripts do not see, and this half, which the browser keeps for this origin alone

const HALF = 'hikube-local.bearer';
const bearer = () => localStorage.getItem(HALF) ?? '';
export const signedIn = () => bearer() !== '';

export async function signIn(code) {
  const headers = { 'Content-Type': 'application/json', Authorization: `Bearer ${bearer()}` };
  const answer = await fetch('session', { method: 'POST', body: JSON.stringify({ code }), headers });
  const said = await answer.json();
  if (!answer.ok) throw new Refusal(answer.status, said.message);
  localStorage.setItem(HALF, said.bearer);
}

export async function signOut() {
  await fetch('session', { method: 'DELETE', headers: { Authorization: `Bearer ${bearer()}` } }).catch(() => {});
  forget();
}

// Another tab signed out.
addEventListener('storage', (e) => {
  if (e.key === HALF && !e.newValue) health.dispatchEvent(new Event('out'));
});

export const forget = () => localStorage.removeItem(HALF);

export class Refusal extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

// An answer of the API; a refusal is thrown, in the server's words.
export async function request(method, path, body) {
  const headers = { Authorization: `Bearer ${bearer()}`, Accept: 'application/json' };
  if (body !== undefined) headers['Content-Type'] = 'application/json';
  let answer;
  try {
    answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch {
    throw new Refusal(0, t('hikube-local serve does not answer'));
  }
  if (answer.ok) return answer;
  if (answer.status === 401) health.dispatchEvent(new Event('out'));
  const said = await answer.json().catch(() => ({}));
  throw new Refusal(answer.status, said.message ?? answer.statusText);
}

export const get = async (path) => (await request('GET', path)).json();

export async function save(path, name) {
  try {
    const url = URL.createObjectURL(await (await request('GET', path)).blob());
    el('a', { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  } catch (e) {
    tell(e.message, true);
  }
}

// What is asked for again and again while somebody looks; the end of that comes back. `draw` gets each answer that differs
// from the one before.
export function poll(path, every, draw, wrong) {
  let closed = false;
  let timer;
  let seen = '';
  async function load() {
    try {
      const answer = await get(path);
      if (closed) return;
      const now = JSON.stringify(answer);
      if (now !== seen) draw(answer);
      seen = now;
    } catch (e) {
      seen = '';
      if (closed) return;
      put(wrong, el('p', { class: 'bad' }, safe(e.message)));
      timer = setTimeout(load, every);
      return;
    }
    put(wrong);
    timer = setTimeout(load, document.hidden ? 30000 : every);
  }
  load();
  return () => {
    closed = true;
    clearTimeout(timer);
  };
}

export function socket(path, protocol) {
  const half = btoa(bearer()).replace(/\+/g, '-').replace(/\//g, '_').replace(/=+$/, '');
  const url = `${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}${path}`;
  return { url, protocols: [protocol, `base64url.bearer.authorization.k8s.io.${half}`] };
}

// Objects of one kind, kept as the server has them

const later = (work) => (document.hidden ? setTimeout(work, 100) : requestAnimationFrame(work));
const key = (o) => `${o.metadata.namespace}/${o.metadata.name}`;
const QUIET = 90000; // milliseconds without a word, bookmarks included (one comes each minute): then nobody is there
let cut = 0; // watches that are not live
export const isLive = () => cut === 0;

function count(step) {
  cut += step;
  health.dispatchEvent(new Event('change'));
}

export class Live {
  // `path` of the list, with its query; `filter`: a field selector
  constructor(path, filter = '') {
    this.path = path;
    this.filter = filter;
    this.items = new Map();
    this.listeners = new Set();
    this.changed = new Set();
    this.loaded = false;
    this.live = true;
    this.wait = 500;
    this.refusal = null;
    this.run();
  }

  subscribe(listener) {
    if (this.loaded || this.refusal) listener([...this.items.keys()]);
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  close() {
    this.closed = true;
    clearTimeout(this.timer);
    clearTimeout(this.quiet);
    this.socket?.close();
    this.mark(true);
  }

  mark(live) {
    if (live !== this.live) count(live ? -1 : 1);
    this.live = live;
  }

  query(more) {
    const words = new URLSearchParams(more);
    if (this.filter) words.set('fieldSelector', this.filter);
    return `${this.path}?${words}`;
  }

  async run() {
    try {
      const list = await get(this.query({}));
      if (this.closed) return;
      const there = new Set(list.items.map(key));
      for (const name of [...this.items.keys()]) if (!there.has(name)) this.set(name, null);
      for (const item of list.items) this.set(key(item), item);
      this.loaded = true;
      this.refusal = null;
      this.told();
      this.watch(list.metadata.resourceVersion);
    } catch (e) {
      if (this.closed) return;
      this.mark(false);
      if (e.code === 403 || e.code === 404) {
        this.refusal = e;
        this.mark(true);
        this.told();
        return;
      }
      this.again();
    }
  }

  watch(from) {
    const { url, protocols } = socket(this.query({ watch: 1, resourceVersion: from, allowWatchBookmarks: 1 }), 'json');
    const ws = (this.socket = new WebSocket(url, protocols));
    let failed = false;
    const heard = () => {
      clearTimeout(this.quiet);
      this.quiet = setTimeout(() => {
        failed = true;
        this.mark(false);
        ws.close();
        ended();
      }, QUIET);
    };
    // The server ends a watch after an hour, and says so: then it goes on from there.
    let over = false;
    const ended = (event) => {
      if (over) return;
      over = true;
      clearTimeout(this.quiet);
      if (this.closed) return;
      if (event?.wasClean && !failed) {
        this.watch(from);
        return;
      }
      this.mark(false);
      this.again();
    };
    ws.onopen = () => {
      this.wait = 500;
      this.mark(true);
      heard();
    };
    ws.onmessage = (message) => {
      heard();
      const { type, object } = JSON.parse(message.data);
      if (type === 'ERROR') {
        failed = true;
        ws.close();
        return;
      }
      from = object.metadata.resourceVersion;
      if (type !== 'BOOKMARK') this.set(key(object), type === 'DELETED' ? null : object);
    };
    ws.onclose = ended;
  }

  again() {
    this.timer = setTimeout(() => this.run(), this.wait);
    this.wait = Math.min(5000, this.wait * 2);
  }

  set(name, object) {
    const old = this.items.get(name);
    if (object && old?.metadata.resourceVersion === object.metadata.resourceVersion) return;
    if (object) this.items.set(name, object);
    else this.items.delete(name);
    this.changed.add(name);
    if (this.changed.size === 1) later(() => this.told());
  }

  told() {
    const names = [...this.changed];
    this.changed.clear();
    for (const listener of this.listeners) {
      try {
        listener(names);
      } catch (e) {
        tell(`${t('This cannot be shown')}: ${e.message}`, true);
      }
    }
  }
}

// Machines

export const APPS = '/apis/apps.cozystack.io/v1alpha1';
export const STAGES = [
  ['firmware', 'firmware'],
  ['bootloader', 'boot loader'],
  ['kernel', 'kernel'],
  ['init', 'init'],
  ['network', 'network'],
  ['cloud-init-local', 'cloud-init (local)'],
  ['cloud-init', 'cloud-init (network)'],
  ['cloud-config', 'cloud-init (config)'],
  ['cloud-final', 'cloud-init (final)'],
];
export const stageWord = (stage) => (stage === 'done' ? t('done') : t(STAGES.find(([name]) => name === stage)?.[1] ?? safe(stage)));

export function stagesOf(machine) {
  const { cloudInit, sshKeys } = machine.spec ?? {};
  const seed = cloudInit || (sshKeys ?? []).length || (machine.status?.conditions ?? []).some((c) => c.type === 'CloudInitSucceeded');
  return STAGES.filter(([name]) => seed || !name.startsWith('cloud'));
}

const SHAPES = { good: '●', busy: '◐', bad: '▲', off: '○' };

// What a machine is doing: a word, its kind, and where its boot is
export function stateOf(machine) {
  const status = machine.status ?? {};
  const conditions = status.conditions ?? [];
  const is = (type, value = 'True') => conditions.some((c) => c.type === type && c.status === value);
  const word = status.printableStatus ?? '';
  if (machine.metadata.deletionTimestamp) return { word: t('Terminating'), kind: 'busy' };
  if (status.failed || (word === 'Running' && is('CloudInitSucceeded', 'False'))) return { word: t('Failed'), kind: 'bad' };
  if (is('Ready', 'False')) return { word: t('Refused'), kind: 'bad' };
  if (word === 'Running' && is('WorkloadsReady')) return { word: t('Ready'), kind: 'good' };
  if (word === 'Running') {
    const stages = stagesOf(machine);
    const now = status.boot?.stages.at(-1);
    const at = stages.findIndex(([name]) => name === now?.stage);
    return { word: t('Booting'), kind: 'busy', at: at + 1, of: stages.length, stage: now?.stage, since: now?.since };
  }
  if (status.cause && word === 'Starting') return { word: t('Cannot start'), kind: 'bad' };
  if (word === 'Stopped' || word === 'Paused') return { word: t(word), kind: 'off' };
  if (word === 'CrashLoopBackOff' || word === 'DataVolumeError' || word === 'Unknown') return { word: t(word), kind: 'bad' };
  return { word: t(word || 'Pending'), kind: 'busy' };
}

export const stateMark = (state) =>
  el('span', { class: `state ${state.kind}` }, el('i', { 'aria-hidden': 'true' }, SHAPES[state.kind]), state.word);

export const stageText = (state) =>
  state.at
    ? t('{at} of {of} · {stage} · {seconds} s', { at: state.at, of: state.of, stage: stageWord(state.stage), seconds: Math.max(0, Math.floor(since(state.since))) })
    : '';

export const addressOf = (machine) => {
  const found = machine.status?.addresses ?? [];
  return (found.find((a) => a.type === 'ExternalIP') ?? found.find((a) => a.type === 'InternalIP'))?.address ?? '';
};

export const typeOf = (machine) => machine.spec?.instanceType || (machine.spec?.resources ? t('own resources') : '');

const HTTP = { 80: 'http', 443: 'https', 3000: 'http', 5000: 'http', 8000: 'http', 8080: 'http', 8443: 'https', 9090: 'http' };

// The ports that are open on this host, each with its address where it usually speaks http
export function portsOf(machine) {
  const seen = new Map((machine.status?.access ?? []).map((a) => [`${a.port}/${a.protocol}`, a]));
  return [...seen.values()].map((a) => {
    const text = a.port === a.hostPort ? String(a.port) : `${a.port}→${a.hostPort}`;
    const scheme = a.protocol === 'TCP' && HTTP[a.port];
    return [text, scheme && /^[\d.:a-f]+$/.test(a.address) ? `${scheme}://${a.address}:${a.hostPort}/` : ''];
  });
}

export const portLinks = (ports) =>
  ports.flatMap(([text, href], i) => [i ? ', ' : null, href ? el('a', { href, target: '_blank', rel: 'noopener noreferrer' }, text) : text]);
// A machine's addresses in the API
export const subresource = (namespace, kind, name, what) =>
  `/apis/subresources.kubevirt.io/v1/namespaces/${encodeURIComponent(namespace)}/${kind}/vm-instance-${encodeURIComponent(name)}/${what}`;
export const beside = (namespace, name, what) =>
  `/hikube/v1/namespaces/${encodeURIComponent(namespace)}/vminstances/${encodeURIComponent(name)}/${what}`;
export const machinePath = (m) => `#/machines/${m.metadata.namespace}/${m.metadata.name}`;
export const flag = (namespace) => (namespace === 'default' ? '' : ` -n ${namespace}`);
