// Who reaches whom: from the rules of the firewall that are in force and the ways in that stand.
import { bdi, command, el, poll, put, row, safe, t, table } from './base.js';

const EVERY = 5000;
const LINE = 30;

const nameOf = (end) => {
  const [kind, ...rest] = end.split('/');
  if (kind === 'machine') return rest.join('/');
  if (kind === 'network') return t('the network {name}', { name: rest.join('/') });
  if (kind === 'tenant') return t('all machines of {namespace}', { namespace: rest[0] });
  if (kind === 'bridge') return t('the network of {bridge}', { bridge: rest[0] });
  return { others: t('machines of other namespaces'), outside: t('the internet and the LAN'), host: t('this host') }[kind] ?? end;
};

const clip = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

const svg = (tag, props, ...children) => el(tag, { svg: true, ...props }, ...children);

function drawing(tenants, arrows) {
  const places = new Map();
  const nodes = [];
  let y = 20;
  const box = (key, x, top, width, height, words, kind) => {
    places.set(key, { left: x, right: x + width, y: top + Math.min(height, 40) / 2 });
    nodes.push(svg('rect', { x, y: top, width, height, rx: 6, class: kind }));
    words.forEach((w, i) => nodes.push(svg('text', { x: x + 10, y: top + 18 + 16 * i, class: i ? 'small' : null }, clip(safe(w), width / 7.6))));
  };
  for (const tenant of tenants) {
    const height = 62 + tenant.machines.length * (LINE + 16);
    box(`tenant/${tenant.namespace}`, 350, y, 320, height, [t('Namespace {name}', { name: tenant.namespace }), arrows.some((a) => a.source === a.target && a.source === `tenant/${tenant.namespace}`) ? t('all reach one another') : '']);
    tenant.machines.forEach((m, i) => box(`machine/${tenant.namespace}/${m.name}`, 370, y + 52 + i * (LINE + 16), 280, LINE + 10, [m.name, m.address || t('address not known yet')], 'machine'));
    y += height + 24;
  }
  const bridges = [...new Set(arrows.map((a) => a.source).filter((s) => s.startsWith('bridge/')))];
  const left = ['host', 'others', ...bridges].filter((k) => arrows.some((a) => a.source === k));
  left.forEach((k, i) => box(k, 10, 20 + i * 90, 250, 40, [nameOf(k)]));
  if (tenants.length) box('outside', 770, 20, 220, 40, [nameOf('outside')]);
  const lines = arrows.filter((a) => a.source !== a.target && places.has(a.source) && places.has(a.target)).map((a, i) => {
    const from = places.get(a.source);
    const to = places.get(a.target);
    const outward = a.target === 'outside';
    const [x1, x2] = [from.right, to.left];
    const bend = (x2 - x1) / 2;
    const shift = outward ? 0 : (i % 5) * 3 - 6;
    const path = `M ${x1} ${from.y + shift} C ${x1 + bend} ${from.y + shift} ${x2 - bend} ${to.y + shift} ${x2} ${to.y + shift}`;
    return svg('g', {}, svg('title', {}, safe(`${nameOf(a.source)} → ${nameOf(a.target)}: ${t(a.what)}. ${a.rule}`)), svg('path', { d: path, 'marker-end': 'url(#end)' }));
  });
  const marker = svg('defs', {}, svg('marker', { id: 'end', viewBox: '0 0 8 8', refX: 8, refY: 4, markerWidth: 7, markerHeight: 7, orient: 'auto-start-reverse' }, svg('path', { d: 'M0 0 L8 4 L0 8 z' })));
  const height = Math.max(y, 20 + left.length * 90);
  return svg('svg', { class: 'drawing', viewBox: `0 0 1000 ${height}`, role: 'img', 'aria-label': t('Drawing of the arrows in the table below') }, marker, nodes, lines);
}

export function show(main) {
  const body = el('div');
  const wrong = el('div');
  put(main, el('h1', { tabindex: '-1' }, t('Network')), wrong, body, command('hikube-local ports'));
  function draw({ tenants, arrows, inForce }) {
    if (!tenants.length) return put(body, el('p', {}, t('No tenant network is up: it is there while a machine runs, on hosts that can have one.')));
    const rows = arrows.map((a) => row(bdi(nameOf(a.source)), bdi(nameOf(a.target)), t(a.what), el('code', {}, safe(a.rule))));
    return put(
      body,
      el('p', {}, inForce ? t('These rules are in force. Answers to what was opened are always let through.') : t('These rules are being changed.')),
      el('p', {}, t('Towards the outside, the host’s loopback and link-local addresses are closed.')),
      drawing(tenants, arrows),
      el('h2', {}, t('Who reaches whom')),
      table([t('From'), t('To'), t('What'), t('Rule')], rows, t('Who reaches whom')),
    );
  }
  return poll('/hikube/v1/network', EVERY, draw, wrong);
}
