// What machines use over time, from the history that serve keeps: lines, and the same in words.
import { all } from './app.js';
import { bdi, beside, command, el, flag, get, put, safe, size, t } from './base.js';

const MOST = 6; // machines side by side
const PLOTS = [
  ['CPU', (h) => h.cpuMillis, (v) => `${Math.round(v)}m`],
  ['Memory', (h) => h.memory, size],
  ['Disk', (h) => h.readPerSecond.map((v, i) => v + h.writtenPerSecond[i]), (v) => `${size(v)}/s`],
  ['Network', (h) => h.receivedPerSecond.map((v, i) => v + h.sentPerSecond[i]), (v) => `${size(v)}/s`],
];
const COLOURS = 6;
const DASHES = [[], [8, 4], [2, 3], [12, 3, 2, 3], [5, 5], [1, 2]];

// A canvas knows no variables: what one comes to is asked of an element that has it as its colour
function colour(name) {
  const probe = el('span', { class: `probe-${name}` });
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

// The line itself, with its dashes: not by its colour alone
const key = (n) =>
  el('svg', { svg: true, class: `plot${(n % COLOURS) + 1}`, viewBox: '0 0 30 8', width: 30, height: 8, 'aria-hidden': 'true' },
    el('line', { svg: true, x1: 0, x2: 30, y1: 4, y2: 4, stroke: 'currentColor', 'stroke-width': 2, 'stroke-dasharray': DASHES[n % DASHES.length].join(' ') || null }));

function summary(name, values, format, fresh) {
  const known = values.filter((v) => v !== null);
  if (!known.length) return t('{name}: nothing recorded', { name });
  const mean = known.reduce((a, b) => a + b, 0) / known.length;
  return t('{name}: now {now}, on average {mean}, at most {most}', { name, now: fresh ? format(known.at(-1)) : '–', mean: format(mean), most: format(Math.max(...known)) });
}

function plotter(body, names, line) {
  const span = el('select', { 'aria-label': t('Time') }, [['1h', 'the last hour'], ['24h', 'the last day']].map(([value, word]) => el('option', { value }, t(word))));
  const state = el('p', { class: 'quiet', role: 'status' });
  const figures = PLOTS.map(([word]) => ({ node: el('figure', {}, el('h2', {}, t(word)), el('div', { class: 'plot', role: 'img' }), el('figcaption', { class: 'quiet' })) }));
  put(body, el('div', { class: 'bar' }, span), state, el('div', { class: 'plots' }, figures.map((f) => f.node)), line);
  let closed = false, timer, uPlot, last, asked = 0;

  async function load() {
    clearTimeout(timer);
    const wanted = span.value;
    const mine = ++asked;
    try {
      const found = await Promise.all(names().map(async ([namespace, name]) => ({ name, history: await get(`${beside(namespace, name, 'history')}?since=${wanted}`) })));
      if (closed || mine !== asked) return;
      last = found;
      draw();
    } catch (e) {
      if (mine === asked) put(state, el('span', { class: 'bad' }, safe(e.message)));
    }
    if (!closed && mine === asked) timer = setTimeout(load, document.hidden ? 60000 : span.value === '1h' ? 5000 : 60000);
  }

  function draw() {
    if (!last || !uPlot) return;
    const any = last.some((f) => f.history.time.length);
    put(state, !last.length ? t('No machine runs.') : any ? null : t('Nothing is recorded yet: usage is recorded every 5 s while serve runs.'));
    const times = [...new Set(last.flatMap((f) => f.history.time))].sort((a, b) => a - b);
    const axis = { stroke: colour('quiet'), grid: { stroke: colour('line'), width: 1 }, ticks: { stroke: colour('line') }, font: '12px system-ui' };
    PLOTS.forEach(([word, of, format], i) => {
      const [, place, caption] = figures[i].node.children;
      const columns = last.map(({ history }) => {
        const at = new Map(history.time.map((time, n) => [time, of(history)[n]]));
        return times.map((time) => at.get(time) ?? null);
      });
      const words = last.map((f, n) => summary(f.name, columns[n], format, Date.now() / 1000 - (f.history.time.at(-1) ?? 0) < 3 * f.history.step));
      place.setAttribute('aria-label', `${t(word)}. ${words.map(safe).join('. ')}`);
      put(caption, words.map((w, n) => el('div', {}, key(n), bdi(w))));
      const data = [times, ...columns];
      // The same lines with newer points stay the same drawing.
      const drawn = [axis.stroke, axis.grid.stroke, place.clientWidth, times.length < 2, ...last.map((f) => f.name)].join();
      if (figures[i].plot && figures[i].drawn === drawn) return figures[i].plot.setData(data);
      figures[i].plot?.destroy();
      figures[i].plot = null;
      put(place);
      if (!times.length) return;
      figures[i].drawn = drawn;
      const options = {
        width: Math.max(200, place.clientWidth),
        height: 200,
        cursor: { drag: { x: false, y: false } },
        legend: { show: false },
        scales: { y: { range: (u, min, max) => [0, Math.max(max, 1) * 1.1] } },
        axes: [{ ...axis, values: [[86400, '{D}.{M}.'], [3600, '{HH}:{mm}'], [60, '{HH}:{mm}'], [1, '{HH}:{mm}:{ss}']].map(([s, f]) => [s, f, null, null, null, null, null, null, 1]) }, { ...axis, size: 70, values: (u, ticks) => ticks.map(format) }],
        series: [{}, ...last.map((f, n) => ({ label: safe(f.name), stroke: colour(`plot${(n % COLOURS) + 1}`), width: 2, dash: DASHES[n % DASHES.length], spanGaps: false, points: { show: times.length < 2 } }))],
      };
      figures[i].plot = new uPlot(options, data, place);
    });
  }

  (async () => {
    ({ default: uPlot } = await import('./vendor/uplot.js'));
    if (!document.querySelector('link[href="vendor/uplot.css"]')) document.head.append(el('link', { rel: 'stylesheet', href: 'vendor/uplot.css' }));
    // Once the grid is laid out, and anew where it or the colours change.
    requestAnimationFrame(load);
  })().catch((e) => put(state, el('span', { class: 'bad' }, safe(e.message))));
  span.addEventListener('change', load);
  const schemes = matchMedia('(prefers-color-scheme: dark)');
  schemes.addEventListener('change', draw);
  addEventListener('colours', draw);
  let wide = 0;
  const watcher = new ResizeObserver(([entry]) => {
    if (wide && Math.abs(entry.contentRect.width - wide) > 8) draw();
    wide = entry.contentRect.width;
  });
  watcher.observe(body);
  return {
    load,
    close() {
      closed = true;
      clearTimeout(timer);
      watcher.disconnect();
      schemes.removeEventListener('change', draw);
      removeEventListener('colours', draw);
      for (const f of figures) f.plot?.destroy();
    },
  };
}

export function inside(body, { namespace, name }) {
  const { close } = plotter(body, () => [[namespace, name]], command(`hikube-local top ${name} --history 1h${flag(namespace)}`));
  return { update() {}, close };
}

export function show(main, rest, query) {
  const live = all('vminstances');
  let wanted = query.get('of') ? new Set(query.get('of').split(',')) : null; // null: all that run
  const body = el('div');
  const pick = el('fieldset', { class: 'bar' });
  put(main, el('h1', { tabindex: '-1' }, t('Usage')), pick, body);
  const chosen = () => {
    const every = [...live.items.values()].filter((m) => m.status?.printableStatus === 'Running');
    const of = wanted ? [...live.items.values()].filter((m) => wanted.has(`${m.metadata.namespace}/${m.metadata.name}`)) : every;
    return of.slice(0, MOST).map((m) => [m.metadata.namespace, m.metadata.name]);
  };
  const plots = plotter(body, chosen, command('hikube-local top --history 1h'));
  let known = '';
  const stop = live.subscribe(() => {
    const names = [...live.items.keys()].sort();
    if (names.join() === known) return;
    known = names.join();
    const now = new Set(chosen().map((c) => c.join('/')));
    put(pick, el('legend', {}, t('Machines (at most {n})', { n: MOST })), names.map((n) => {
      const box = el('input', { type: 'checkbox', value: n, checked: now.has(n), disabled: !now.has(n) && now.size >= MOST });
      box.addEventListener('change', () => {
        wanted = new Set([...pick.querySelectorAll('input:checked')].map((b) => b.value));
        for (const other of pick.querySelectorAll('input:not(:checked)')) other.disabled = wanted.size >= MOST;
        plots.load();
      });
      return el('label', {}, box, ' ', bdi(n));
    }));
    pick.hidden = names.length < 2;
    plots.load();
  });
  return () => {
    stop();
    plots.close();
  };
}
