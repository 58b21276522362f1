// A machine's serial console: what it said before, then live. Nothing is sent that was not typed.
import { bdi, beside, command, el, flag, put, request, safe, save, socket, subresource, t } from './base.js';

const LINES = 5000; // kept to scroll back to
const BEFORE = 3000; // lines of the log that are shown first
const UNWRITTEN = 1 << 20; // bytes that may wait for the terminal

// xterm writes <style> while it is made, and style="" as long as it lives, which the page's policy forbids: both go the ways
// that it allows. What is handed back ends that.
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
  const tidy = () => {
    Element.prototype.setAttribute = setAttribute;
    document.adoptedStyleSheets = document.adoptedStyleSheets.filter((s) => !sheets.includes(s));
  };
  try {
    make();
  } catch (e) {
    tidy();
    throw e;
  } finally {
    delete document.createElement;
  }
  return tidy;
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

export function inside(body, { namespace, name, base, window: own, machine }) {
  const screen = el('div', { class: 'screen tty' });
  const state = el('p', { class: 'quiet', role: 'status' }, t('Connecting…'));
  const find = el('input', { type: 'search', 'aria-label': t('Search in the console'), placeholder: t('Search') });
  const leave = el('button', { type: 'button', onclick: () => { location.hash = base; } }, t('Leave the console (Ctrl+])'));
  const log = (query) => beside(namespace, name, `log${query}`);
  const bar = el('div', { class: 'bar' }, find, el('button', { type: 'button', onclick: () => search?.findPrevious(find.value) }, t('Previous')), el('button', { type: 'button', onclick: () => search?.findNext(find.value) }, t('Next')),
    el('button', { type: 'button', onclick: resize }, t('Tell the guest this size')),
    el('button', { type: 'button', onclick: () => save(log(''), `${name}-console.log`) }, t('Download the log')),
    own ? null : el('a', { href: `${base}/console/window`, target: '_blank', rel: 'noopener' }, t('Own window')), leave);
  put(body, bar, state, screen, own ? null : command(`hikube-local console ${name}${flag(namespace)}`));
  let term, search, fit, ws, tidy, watcher, closed = false, delay = 500, timer;
  let blocks = []; // what waits to be shown, the oldest first
  let waiting = 0; // bytes of it
  let writing = true; // until what was said before is there
  const send = (bytes) => { if (ws?.readyState === WebSocket.OPEN) ws.send(bytes); };

  find.addEventListener('keydown', (e) => { if (e.key === 'Enter') search?.[e.shiftKey ? 'findPrevious' : 'findNext'](find.value); });

  function resize() {
    if (!term) return;
    // A serial line carries no size: the shell is told as a person would.
    send(new TextEncoder().encode(`stty rows ${term.rows} cols ${term.cols}\r`));
    term.focus();
  }

  const write = (data) => new Promise((done) => term.write(data, done));

  // Faster than it can be shown: the oldest of what waits is left out, and it says so; nothing grows.
  function take(data) {
    blocks.push(data);
    waiting += data.length;
    let left = 0;
    while (waiting > UNWRITTEN && blocks.length > 1) {
      left += blocks[0].length;
      waiting -= blocks.shift().length;
    }
    if (left) {
      // A sequence that was cut ends here (CAN), and its colours.
      const note = new TextEncoder().encode(`\x18\x1b[0m\r\n… ${t('{n} bytes are not shown', { n: left })} …\r\n`);
      blocks.unshift(note);
      waiting += note.length;
    }
    pump();
  }

  async function pump() {
    if (writing) return;
    writing = true;
    while (blocks.length && !closed) {
      const block = blocks.shift();
      waiting -= block.length;
      await write(block);
    }
    writing = false;
  }

  // All that was said since the start, then what comes: also after the connection was lost
  async function before() {
    writing = true;
    let text = '';
    try {
      text = await (await request('GET', log(`?tailLines=${BEFORE}`))).text();
    } catch {
      // none is kept: what comes is shown
    }
    if (closed) return;
    term.reset();
    if (text) await write(text.replace(/\n/g, '\r\n'));
    writing = false;
    pump();
  }

  function connect() {
    clearTimeout(timer);
    const { url, protocols } = socket(subresource(namespace, 'virtualmachineinstances', name, 'console'), 'plain.kubevirt.io');
    ws = new WebSocket(url, protocols);
    ws.binaryType = 'arraybuffer';
    let opened = false;
    ws.onopen = () => {
      opened = true;
      delay = 500;
      put(state, t('Connected. Keys go to the guest; Ctrl+] leaves.'));
      before();
    };
    ws.onmessage = ({ data }) => take(new Uint8Array(data));
    ws.onclose = () => {
      ws = null;
      if (closed) return;
      put(state, opened ? t('The console was closed. Trying again.') : t('There is no console now: the machine is off, or has none. Trying again.'));
      if (!opened && delay === 500) before();
      timer = setTimeout(connect, delay);
      delay = Math.min(15000, delay * 2);
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
    term.onData((data) => send(new TextEncoder().encode(data)));
    fit.fit();
    watcher = new ResizeObserver(() => fit.fit());
    watcher.observe(screen);
    // For whoever tests the page: what the terminal shows.
    screen.terminal = term;
    connect();
    term.focus();
  })().catch((e) => put(state, el('span', { class: 'bad' }, bdi(e.message))));

  let on = machine()?.status?.printableStatus;
  return {
    // It runs now: no need to wait for the next try.
    update(now) {
      const is = now.status?.printableStatus;
      if (is === 'Running' && on !== is && !ws && term) {
        delay = 500;
        connect();
      }
      on = is;
    },
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
