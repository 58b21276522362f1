// A machine's serial console: what it said before, then live. Nothing is sent that was not typed.
import { bdi, command, el, flag, get, put, request, safe, socket, t, tell } from './base.js';

const LINES = 5000; // kept to scroll back to
const BEFORE = 3000; // lines of the log that are shown first
const UNWRITTEN = 1 << 20; // bytes that may wait for the terminal

// xterm writes <style> and style="", which the page's policy forbids: while one is made, both go the ways that it allows.
function styled(make) {
  const create = Document.prototype.createElement;
  const setAttribute = Element.prototype.setAttribute;
  const sheets = [];
  document.createElement = function (name, ...more) {
    if (String(name).toLowerCase() !== 'style') return create.call(document, name, ...more);
    const node = create.call(document, 'hikube-style');
    const sheet = new CSSStyleSheet();
    sheets.push(sheet);
    Object.defineProperty(node, 'textContent', { set: (css) => sheet.replaceSync(css), get: () => '' });
    const remove = node.remove.bind(node);
    node.remove = () => {
      document.adoptedStyleSheets = document.adoptedStyleSheets.filter((s) => s !== sheet);
      remove();
    };
    document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
    return node;
  };
  Element.prototype.setAttribute = function (name, value) {
    if (name === 'style' && this.style) this.style.cssText = value;
    else setAttribute.call(this, name, value);
  };
  try {
    make();
  } finally {
    delete document.createElement;
  }
  return () => {
    Element.prototype.setAttribute = setAttribute;
    document.adoptedStyleSheets = document.adoptedStyleSheets.filter((s) => !sheets.includes(s));
  };
}

// What a terminal would answer, or act on outside its screen: none of it is done
function guard(term) {
  const no = () => true;
  const { parser } = term;
  for (const number of [0, 1, 2, 4, 8, 9, 10, 11, 12, 52, 104, 110, 111, 112, 133, 633, 1337]) parser.registerOscHandler(number, no);
  for (const prefix of ['', '?', '>', '=', '<']) {
    for (const final of ['c', 'n', 'q', 'u']) {
      if (prefix === '' && (final === 'q' || final === 'u')) continue;
      parser.registerCsiHandler({ prefix: prefix || undefined, final }, no);
    }
  }
  parser.registerCsiHandler({ final: 't' }, no);
  parser.registerCsiHandler({ intermediates: '$', final: 'p' }, no);
  parser.registerCsiHandler({ prefix: '?', intermediates: '$', final: 'p' }, no);
  // Reports of focus and of the mouse would be sent for what was not typed.
  parser.registerCsiHandler({ prefix: '?', final: 'h' }, (params) => params.flat().some((p) => p === 9 || (p >= 1000 && p <= 1016)));
  parser.registerDcsHandler({ intermediates: '$', final: 'q' }, no);
  parser.registerDcsHandler({ intermediates: '+', final: 'q' }, no);
  parser.registerEscHandler({ final: 'Z' }, no);
}

async function parts() {
  const [xterm, fit, search] = await Promise.all([import('./vendor/xterm.js'), import('./vendor/xterm-fit.js'), import('./vendor/xterm-search.js')]);
  if (!document.querySelector('link[href="vendor/xterm.css"]')) {
    await new Promise((done) => document.head.append(el('link', { rel: 'stylesheet', href: 'vendor/xterm.css', onload: done, onerror: done })));
  }
  return { Terminal: xterm.Terminal, Fit: fit.FitAddon, Search: search.SearchAddon };
}

export async function podOf(namespace, name) {
  const query = new URLSearchParams({ labelSelector: `vm.kubevirt.io/name=vm-instance-${name}` });
  const { items } = await get(`/api/v1/namespaces/${encodeURIComponent(namespace)}/pods?${query}`);
  return items[0]?.metadata.name;
}

export function inside(body, { namespace, name, base, window: own }) {
  const screen = el('div', { class: 'screen tty' });
  const state = el('p', { class: 'quiet', role: 'status' }, t('Connecting…'));
  const find = el('input', { type: 'search', 'aria-label': t('Search in the console'), placeholder: t('Search') });
  const leave = el('button', { type: 'button' }, t('Leave the console (Ctrl+])'));
  const bar = el('div', { class: 'bar' }, find, el('button', { type: 'button', onclick: () => search?.findPrevious(find.value) }, t('Previous')), el('button', { type: 'button', onclick: () => search?.findNext(find.value) }, t('Next')),
    el('button', { type: 'button', onclick: resize }, t('Tell the guest this size')),
    el('button', { type: 'button', onclick: download }, t('Download the log')),
    own ? null : el('a', { href: `${base}/console/window`, target: '_blank', rel: 'noopener' }, t('Own window')), leave);
  put(body, bar, state, screen, own ? null : command(`hikube-local console ${name}${flag(namespace)}`));
  let term, search, fit, ws, tidy, watcher, closed = false, waiting = 0, held = [], queue = Promise.resolve(), delay = 500, timer;
  const send = (bytes) => { if (ws?.readyState === WebSocket.OPEN) ws.send(bytes); };

  find.addEventListener('keydown', (e) => { if (e.key === 'Enter') search?.[e.shiftKey ? 'findPrevious' : 'findNext'](find.value); });

  function resize() {
    // A serial line carries no size: the shell is told as a person would.
    send(new TextEncoder().encode(`stty rows ${term.rows} cols ${term.cols}\r`));
    term.focus();
  }

  async function download() {
    try {
      const pod = await podOf(namespace, name);
      const answer = await request('GET', `/api/v1/namespaces/${namespace}/pods/${pod}/log`);
      const url = URL.createObjectURL(await answer.blob());
      el('a', { href: url, download: `${name}-console.log` }).click();
      setTimeout(() => URL.revokeObjectURL(url), 10000);
    } catch (e) {
      tell(e.message, true);
    }
  }

  async function before() {
    try {
      const pod = await podOf(namespace, name);
      if (!pod) return '';
      return await (await request('GET', `/api/v1/namespaces/${namespace}/pods/${pod}/log?tailLines=${BEFORE}`)).text();
    } catch {
      return '';
    }
  }

  const write = (data) => new Promise((done) => term.write(data, done));

  function take(data) {
    if (held) {
      held.push(data);
      return;
    }
    waiting += data.length;
    queue = queue.then(async () => {
      await write(data);
      waiting -= data.length;
    });
  }

  function connect(first) {
    const { url, protocols } = socket(`/apis/subresources.kubevirt.io/v1/namespaces/${namespace}/virtualmachineinstances/vm-instance-${name}/console`, 'plain.kubevirt.io');
    ws = new WebSocket(url, protocols);
    ws.binaryType = 'arraybuffer';
    ws.onopen = () => {
      delay = 500;
      put(state, t('Connected. Keys go to the guest; Ctrl+] leaves.'));
    };
    ws.onmessage = ({ data }) => {
      // Faster than it can be shown: the oldest of what waits is not shown, and nothing grows.
      if (waiting > UNWRITTEN && !held) return;
      take(new Uint8Array(data));
    };
    ws.onclose = () => {
      if (closed) return;
      put(state, first ? t('There is no console now: the machine is off, or has none. Trying again.') : t('The console was closed. Trying again.'));
      timer = setTimeout(() => connect(first), delay);
      delay = Math.min(5000, delay * 2);
    };
  }

  (async () => {
    const { Terminal, Fit, Search } = await parts();
    if (closed) return;
    tidy = styled(() => {
      term = new Terminal({ scrollback: LINES, allowProposedApi: true, linkHandler: null, windowOptions: {}, screenReaderMode: true, fontFamily: 'ui-monospace, monospace', fontSize: 14 });
      fit = new Fit();
      search = new Search();
      term.loadAddon(fit);
      term.loadAddon(search);
      guard(term);
      term.open(screen);
    });
    term.attachCustomKeyEventHandler((e) => {
      if (e.ctrlKey && (e.key === ']' || e.code === 'BracketRight')) {
        e.preventDefault();
        leave.focus();
        return false;
      }
      return true;
    });
    leave.addEventListener('click', () => { location.hash = base; });
    term.onData((data) => send(new TextEncoder().encode(data)));
    fit.fit();
    watcher = new ResizeObserver(() => fit.fit());
    watcher.observe(screen);
    connect(true);
    const text = await before();
    if (closed) return;
    if (text) await write(text.replace(/\n/g, '\r\n'));
    const arrived = held;
    held = null;
    arrived.forEach(take);
    term.focus();
    // For whoever tests the page: what the terminal shows.
    screen.terminal = term;
  })().catch((e) => put(state, el('span', { class: 'bad' }, bdi(safe(e.message)))));

  return {
    update() {},
    close() {
      closed = true;
      clearTimeout(timer);
      watcher?.disconnect();
      ws?.close();
      term?.dispose();
      tidy?.();
    },
  };
}
