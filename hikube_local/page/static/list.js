// The list of machines, and that of disks.
import { all } from './app.js';
import { addressOf, age, bdi, cell, el, command, machinePath, portsOf, put, safe, say, since, size, spaced, stageText, stateMark, stateOf, t, table, typeOf } from './base.js';

// What a cell says and where its links lead
const sign = (cell) => cell.textContent + [...cell.getElementsByTagName('a')].map((a) => a.getAttribute('href'));
const text = (value) => (value === '' ? null : bdi(value));

const COLUMNS = {
  machines: ['Name', 'State', 'Boot', 'Type', 'Address', 'Ports', 'Age'],
  disks: ['Name', 'State', 'Progress', 'Size', 'Source', 'Storage class', 'Age'],
};
const NONE = {
  machines: ['There are no machines yet.', 'hikube-local up manifest.yaml'],
  disks: ['There are no disks yet.', 'hikube-local up manifest.yaml'],
};

function machineCells(machine) {
  const state = stateOf(machine);
  const cause = machine.status?.cause?.message;
  const name = el('a', { href: machinePath(machine) }, bdi(machine.metadata.name));
  const boot = el('span', {}, stageText(state));
  const cells = [
    cell([name, many ? el('span', { class: 'quiet' }, ' ', bdi(machine.metadata.namespace)) : null]),
    cell([stateMark(state), cause && state.kind === 'bad' ? el('div', { class: 'cause' }, bdi(cause)) : null]),
    cell(boot, 'busy'),
    cell(text(typeOf(machine))),
    cell(text(addressOf(machine))),
    cell(spaced(portsOf(machine))),
    cell(age(since(machine.metadata.creationTimestamp)), 'num'),
  ];
  return [cells, state.at ? (node) => say(node.children[2].firstChild, stageText(state)) : null];
}

function sourceOf(spec) {
  const source = spec.source ?? {};
  if (source.image) return `image ${source.image.name}`;
  if (source.http) return source.http.url;
  if (source.disk) return `disk ${source.disk.name}`;
  return source.upload ? 'upload' : t('empty');
}

function diskCells(disk) {
  const status = disk.status ?? {};
  const phase = disk.metadata.deletionTimestamp ? 'Terminating' : (status.phase ?? 'Pending');
  const kind = phase === 'Succeeded' ? 'good' : phase === 'Failed' ? 'bad' : 'busy';
  const percent = /^([\d.]+)%$/.exec(status.progress ?? '')?.[1];
  const message = kind === 'bad' ? status.conditions?.find((c) => c.message)?.message : '';
  const bar = percent && kind === 'busy' ? [el('progress', { max: 100, value: percent, 'aria-label': t('Import') }), ` ${status.progress}`] : null;
  const used = status.actualSize ? el('span', { class: 'quiet' }, ' ', t('{size} used', { size: size(status.actualSize) })) : null;
  return [
    [
      cell([bdi(disk.metadata.name), many ? el('span', { class: 'quiet' }, ' ', bdi(disk.metadata.namespace)) : null]),
      cell([stateMark({ word: t(phase), kind }), message ? el('div', { class: 'cause' }, bdi(message)) : null]),
      cell(bar),
      cell([bdi(disk.spec?.storage ?? ''), used]),
      cell(bdi(sourceOf(disk.spec ?? {}))),
      cell(bdi(disk.spec?.storageClass ?? '')),
      cell(age(since(disk.metadata.creationTimestamp)), 'num'),
    ],
    null,
  ];
}

let many = false; // more namespaces than one

export function show(main, [view]) {
  const live = all(view === 'disks' ? 'vmdisks' : 'vminstances');
  const cellsOf = view === 'disks' ? diskCells : machineCells;
  const rows = new Map();
  const filter = el('input', { type: 'search', class: 'wide', 'aria-label': t('Filter'), placeholder: t('Filter (press /)') });
  const spaces = el('select', { 'aria-label': t('Namespace') });
  const total = el('p', { class: 'quiet', role: 'status' });
  const grid = table(COLUMNS[view].map((c) => t(c)), [], t(view === 'disks' ? 'Disks' : 'Machines'));
  const body = grid.lastChild;
  grid.classList.add('list', view);
  const empty = el('div');
  put(main, el('h1', { tabindex: '-1' }, t(view === 'disks' ? 'Disks' : 'Machines')), el('div', { class: 'bar' }, filter, spaces), total, grid, empty);

  const fits = (name, object) => {
    const text = `${object.metadata.namespace} ${rows.get(name)?.node.textContent ?? ''}`.toLowerCase();
    return (!spaces.value || object.metadata.namespace === spaces.value) && text.includes(filter.value.toLowerCase());
  };

  function draw(name) {
    const object = live.items.get(name);
    const old = rows.get(name);
    if (!object) {
      old?.node.remove();
      rows.delete(name);
      return;
    }
    const [cells, tick] = cellsOf(object);
    const node = old?.node ?? el('div', { role: 'row', class: 'row' });
    cells.forEach((c, i) => c.setAttribute('data-head', t(COLUMNS[view][i])));
    // Cells that say the same stay, and with them the focus.
    if (!old) put(node, cells);
    else cells.forEach((c, i) => sign(node.children[i]) !== sign(c) && put(node.children[i], ...c.childNodes));
    const older = () => put(node.lastChild, age(since(object.metadata.creationTimestamp)));
    rows.set(name, { node, tick, older });
    node.hidden = !fits(name, object);
    if (!old) place(name, node);
  }

  // In the order of namespace and name
  function place(name, node) {
    const next = bulk ? null : [...rows.keys()].filter((n) => n > name && rows.get(n).node.isConnected).sort()[0];
    if (next) body.insertBefore(node, rows.get(next).node);
    else body.append(node);
  }

  let bulk = false;

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
    bulk = rows.size === 0;
    for (const name of bulk ? names.sort() : names) draw(name);
    bulk = false;
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
  const clock = setInterval(() => { for (const { node, tick } of rows.values()) tick?.(node); }, 1000);
  const slow = setInterval(() => { for (const { older } of rows.values()) older(); }, 15000);
  return () => {
    stop();
    clearInterval(clock);
    clearInterval(slow);
    removeEventListener('keydown', keys);
  };
}
