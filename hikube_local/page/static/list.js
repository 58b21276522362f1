// The list of machines, and that of disks.
import { all } from './app.js';
import { addressOf, age, bdi, el, command, machinePath, portLinks, portsOf, put, safe, say, since, size, stageText, stateMark, stateOf, t, table, typeOf } from './base.js';

const text = (value) => (value === '' ? null : bdi(value));
const where = (object) => (many ? object.metadata.namespace : '');
const named = (space) => (space ? el('span', { class: 'quiet' }, ' ', bdi(space)) : null);
const marked = ([word, kind, cause]) => [stateMark({ word, kind }), cause ? el('div', { class: 'cause' }, bdi(cause)) : null];
const old = (object) => age(since(object.metadata.creationTimestamp));

// A column: its head, what it shows of an object, how that is drawn, its class. What shows the same stays, and with it the focus.
const COLUMNS = {
  machines: [
    ['Name', (m) => [machinePath(m), m.metadata.name, where(m)], ([path, name, space]) => [el('a', { href: path }, bdi(name)), named(space)]],
    ['State', (m) => { const { word, kind } = stateOf(m); return [word, kind, kind === 'bad' ? m.status?.cause?.message : '']; }, marked],
    ['Boot', (m) => stageText(stateOf(m)), (stage) => el('span', {}, stage), 'busy'],
    ['Type', typeOf, text],
    ['Address', addressOf, text],
    ['Ports', portsOf, portLinks],
    ['Age', old, (a) => a, 'num'],
  ],
  disks: [
    ['Name', (d) => [d.metadata.name, where(d)], ([name, space]) => [bdi(name), named(space)]],
    ['State', (d) => [t(phaseOf(d)), kindOf(d), kindOf(d) === 'bad' ? d.status?.conditions?.find((c) => c.message)?.message : ''], marked],
    ['Progress', (d) => (kindOf(d) === 'busy' ? (/^([\d.]+)%$/.exec(d.status?.progress ?? '')?.[1] ?? '') : ''), (percent) => percent && [el('progress', { max: 100, value: percent, 'aria-label': t('Import') }), ` ${percent}%`]],
    ['Size', (d) => [d.spec?.storage ?? '', d.status?.actualSize], ([given, used]) => [bdi(given), used ? el('span', { class: 'quiet' }, ' ', t('{size} used', { size: size(used) })) : null]],
    ['Source', (d) => sourceOf(d.spec ?? {}), bdi],
    ['Storage class', (d) => d.spec?.storageClass ?? '', bdi],
    ['Age', old, (a) => a, 'num'],
  ],
};
const [BOOT, AGE] = [2, 6]; // what time alone changes
const NONE = {
  machines: ['There are no machines yet.', 'hikube-local up manifest.yaml'],
  disks: ['There are no disks yet.', 'hikube-local up manifest.yaml'],
};

const phaseOf = (disk) => (disk.metadata.deletionTimestamp ? 'Terminating' : (disk.status?.phase ?? 'Pending'));
const kindOf = (disk) => ({ Succeeded: 'good', Failed: 'bad' })[phaseOf(disk)] ?? 'busy';

function sourceOf(spec) {
  const source = spec.source ?? {};
  if (source.image) return `image ${source.image.name}`;
  if (source.http) return source.http.url;
  if (source.disk) return `disk ${source.disk.name}`;
  return source.upload ? 'upload' : t('empty');
}

let many = false; // more namespaces than one

export function show(main, [view]) {
  const live = all(view === 'disks' ? 'vmdisks' : 'vminstances');
  const columns = COLUMNS[view];
  const heads = columns.map(([head]) => t(head));
  const rows = new Map();
  const filter = el('input', { type: 'search', class: 'wide', 'aria-label': t('Filter'), placeholder: t('Filter (press /)') });
  const spaces = el('select', { 'aria-label': t('Namespace') });
  const total = el('p', { class: 'quiet', role: 'status' });
  const grid = table(heads, [], t(view === 'disks' ? 'Disks' : 'Machines'));
  const body = grid.lastChild;
  grid.classList.add('list', view);
  const empty = el('div');
  put(main, el('h1', { tabindex: '-1' }, t(view === 'disks' ? 'Disks' : 'Machines')), el('div', { class: 'bar' }, filter, spaces), total, grid, empty);

  function fits(name, object) {
    if (spaces.value && object.metadata.namespace !== spaces.value) return false;
    const wanted = filter.value.toLowerCase();
    return !wanted || `${object.metadata.namespace} ${rows.get(name).node.textContent}`.toLowerCase().includes(wanted);
  }

  function fill({ node, said }, object, only = columns.keys()) {
    for (const i of only) {
      const value = columns[i][1](object);
      const now = JSON.stringify(value) ?? '';
      if (said[i] !== now) put(node.children[i], columns[i][2](value));
      said[i] = now;
    }
  }

  function draw(name, into) {
    const object = live.items.get(name);
    if (!object) {
      rows.get(name)?.node.remove();
      rows.delete(name);
      return;
    }
    const old = rows.get(name);
    const row = old ?? { said: [], node: el('div', { role: 'row', class: 'row' }, columns.map(([, , , kind], i) => el('span', { role: 'cell', class: kind, 'data-head': heads[i] }))) };
    fill(row, object);
    rows.set(name, row);
    row.node.hidden = !fits(name, object);
    if (!old) (into ?? body).insertBefore(row.node, into ? null : after(name));
  }

  // The row before which a new one comes, in the order of namespace and name
  function after(name) {
    let next = null;
    for (const n of rows.keys()) if (n > name && (next === null || n < next)) next = n;
    return next && rows.get(next).node;
  }

  function changed(names) {
    if (live.refusal) {
      put(empty, el('p', { class: 'bad' }, safe(live.refusal.message)));
      return;
    }
    const found = [...new Set([...live.items.values()].map((o) => o.metadata.namespace))].sort();
    const was = spaces.value;
    if (spaces.options.length !== found.length + 1 || found.some((n, i) => spaces.options[i + 1].value !== n)) {
      put(spaces, el('option', { value: '' }, t('All namespaces')), found.map((n) => el('option', { value: n }, safe(n))));
      spaces.value = found.includes(was) ? was : '';
    }
    spaces.hidden = found.length < 2;
    if (many !== found.length > 1) {
      many = found.length > 1;
      names = [...new Set([...names, ...live.items.keys()])];
    }
    if (rows.size === 0) {
      const all = new DocumentFragment();
      for (const name of names.sort()) draw(name, all);
      body.append(all);
    } else for (const name of names) draw(name);
    if (was !== spaces.value) sift();
    else counted();
  }

  function counted() {
    if (live.refusal) return;
    const shown = [...rows.values()].filter((r) => !r.node.hidden).length;
    say(total, shown === rows.size ? t('{n} in all', { n: rows.size }) : t('{shown} of {n}', { shown, n: rows.size }));
    grid.hidden = total.hidden = rows.size === 0;
    if (rows.size) put(empty);
    else if (live.loaded) put(empty, el('p', {}, t(NONE[view][0])), command(NONE[view][1]));
    else put(empty, el('p', { class: 'quiet' }, t('Loading…')));
  }

  function sift() {
    for (const [name, { node }] of rows) node.hidden = !fits(name, live.items.get(name));
    counted();
  }

  filter.addEventListener('input', sift);
  spaces.addEventListener('change', sift);
  const keys = (e) => {
    if (e.key === '/' && !/^(INPUT|TEXTAREA|SELECT)$/.test(e.target.tagName)) {
      e.preventDefault();
      filter.focus();
    } else if (e.key === 'Escape' && e.target === filter) {
      filter.value = '';
      sift();
    }
  };
  addEventListener('keydown', keys);
  counted();
  const stop = live.subscribe(changed);
  const anew = (i) => () => { for (const [name, row] of rows) if (live.items.has(name)) fill(row, live.items.get(name), [i]); };
  const clock = view === 'machines' ? setInterval(anew(BOOT), 1000) : 0;
  const slow = setInterval(anew(AGE), 15000);
  return () => {
    stop();
    clearInterval(clock);
    clearInterval(slow);
    removeEventListener('keydown', keys);
  };
}
