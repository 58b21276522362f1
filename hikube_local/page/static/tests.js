// What `hikube-local test` found: runs that are under way and those that are kept.
import { bars } from './machine.js';
import { age, bdi, command, el, get, put, request, safe, since, stageWord, stateMark, t, tell } from './base.js';

const EVERY = 3000;
const KINDS = { passed: 'good', failed: 'bad', 'timed out': 'bad' };

async function download(id) {
  try {
    const answer = await request('GET', `/hikube/v1/tests/${id}/report`);
    const url = URL.createObjectURL(await answer.blob());
    el('a', { href: url, download: `hikube-local-test-${id}.html` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  } catch (e) {
    tell(e.message, true);
  }
}

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
    ? [(run.reports ?? []).map(report), el('p', {}, el('button', { type: 'button', onclick: () => download(run.id) }, t('Download the report')))]
    : el('ul', {}, going));
}

export function show(main) {
  const list = el('div');
  put(main, el('h1', { tabindex: '-1' }, t('Tests')), list, command('hikube-local test manifest.yaml'));
  let closed = false, timer, seen = '';
  async function load() {
    try {
      const { items } = await get('/hikube/v1/tests');
      const now = JSON.stringify(items);
      if (!closed && (now !== seen || items.some((r) => r.state === 'running'))) {
        seen = now;
        const open = new Set([...list.querySelectorAll('details[open]')].map((d) => d.dataset.id));
        const focus = document.activeElement?.closest?.('details')?.dataset.id;
        put(list, items.length ? items.map(card) : el('p', {}, t('No test has run yet.')));
        for (const d of list.querySelectorAll('details')) {
          d.open = open.has(d.dataset.id) || (!open.size && d === list.firstChild);
          if (focus === d.dataset.id) d.firstChild.focus();
        }
      }
    } catch (e) {
      put(list, el('p', { class: 'bad' }, safe(e.message)));
    }
    if (!closed) timer = setTimeout(load, document.hidden ? 30000 : EVERY);
  }
  load();
  return () => {
    closed = true;
    clearTimeout(timer);
  };
}
