// What `hikube-local test` found: runs that are under way and those that are kept.
import { bars } from './machine.js';
import { age, bdi, command, el, poll, put, safe, save, since, stageWord, stateMark, t } from './base.js';

const EVERY = 3000;
const KINDS = { passed: 'good', failed: 'bad', 'timed out': 'bad' };

function report(r) {
  let from = 0;
  const stages = r.stages.map((s) => {
    const one = { name: stageWord(s.stage), from, seconds: s.seconds };
    from += s.seconds;
    return one;
  });
  const place = (p) => (p.file ? `${p.file}:${p.line}: ` : '');
  return [
    el('h2', {}, bdi(`${r.namespace}/${r.machine}${r.image ? ` on ${r.image}` : ''}`), ' ', stateMark({ word: t(r.result), kind: KINDS[r.result] ?? 'off' }), r.seconds === null ? '' : ` ${t('after {n} s', { n: r.seconds.toFixed(0) })}`),
    r.cause ? el('p', { class: 'bad' }, bdi(r.cause)) : null,
    stages.length ? bars(stages, Math.max(1, from)) : null,
    r.problems.length ? el('ul', {}, r.problems.map((p) => el('li', {}, el('strong', {}, safe(place(p))), bdi(p.message), p.lines.length ? el('pre', { tabindex: '0' }, safe(p.lines.join('\n'))) : null))) : null,
    r.checks.length ? el('ul', {}, r.checks.map((c) => el('li', { class: c.passed ? null : 'bad' }, c.passed ? t('passed') : t('FAILED'), ': ', bdi(c.title), ' ', bdi(c.found.join('; '))))) : null,
  ];
}

function card(run) {
  const verdicts = (run.reports ?? []).map((r) => r.result);
  const kind = run.state === 'running' ? 'busy' : run.state === 'killed' || !verdicts.length ? 'off' : verdicts.every((v) => v === 'passed') ? 'good' : 'bad';
  const word = run.state === 'ended' ? (kind === 'good' ? 'passed' : kind === 'bad' ? 'failed' : 'ended') : run.state;
  const going = Object.entries(run.machines ?? {}).map(([name, m]) => el('li', {}, bdi(name), m.stage ? `: ${stageWord(m.stage)} · ${age(since(m.since))}` : ''));
  const head = [bdi((run.manifests ?? []).join(' ')), ' ', stateMark({ word: t(word), kind }), ' ', el('span', { class: 'quiet' }, t('{age} ago', { age: age(since(run.begun)) }))];
  return el('details', { 'data-id': run.id }, el('summary', {}, head), run.state === 'ended'
    ? [(run.reports ?? []).map(report), el('p', {}, el('button', { type: 'button', onclick: () => save(`/hikube/v1/tests/${run.id}/report`, `hikube-local-test-${run.id}.html`) }, t('Download the report')))]
    : el('ul', {}, going));
}

export function show(main) {
  const list = el('div');
  const wrong = el('div');
  put(main, el('h1', { tabindex: '-1' }, t('Tests')), wrong, list, command('hikube-local test manifest.yaml'));
  let first = true;
  const known = new Map();
  function draw({ items }) {
    const there = new Set(items.map((r) => r.id));
    for (const id of known.keys()) if (!there.has(id)) known.delete(id);
    // A run that is as it was keeps its place, what is open and the focus.
    const cards = items.map((run) => {
      const text = JSON.stringify(run);
      const old = known.get(run.id);
      if (old?.text === text) return old.node;
      const node = card(run);
      node.open = old ? old.node.open : first;
      first = false;
      known.set(run.id, { text, node });
      return node;
    });
    if (cards.length !== list.children.length || cards.some((c, i) => c !== list.children[i])) put(list, cards.length ? cards : el('p', {}, t('No test has run yet.')));
  }
  return poll('/hikube/v1/tests', EVERY, draw, wrong);
}
