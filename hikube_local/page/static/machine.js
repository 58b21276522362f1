// One machine: why it failed, where its boot is, what can be done with it.
import { act, all } from './app.js';
import { APPS, Live, addressOf, age, ask, bdi, beside, command, el, flag, get, portLinks, portsOf, put, row, safe, say, shown, since, size, stageText, stageWord, stagesOf, stateMark, stateOf, subresource, t, table, typeOf } from './base.js';

const TABS = {
  overview: 'Overview',
  events: 'Events',
  console: 'Console',
  screen: 'Screen',
  usage: 'Usage',
  snapshots: 'Snapshots',
  manifest: 'Manifest',
};

export async function show(main, [namespace, name, tab = 'overview', window_]) {
  if (!Object.hasOwn(TABS, tab)) tab = 'overview';
  const key = `${namespace}/${name}`;
  const live = all('vminstances');
  const head = el('h1', { tabindex: '-1' }, bdi(name));
  const top = el('div');
  const actions = el('div', { class: 'bar' });
  const base = `#/machines/${encodeURIComponent(namespace)}/${encodeURIComponent(name)}`;
  const tabs = Object.entries(TABS).map(([id, word]) =>
    el('li', {}, el('a', { href: id === 'overview' ? base : `${base}/${id}`, 'aria-current': id === tab ? 'page' : null }, t(word))));
  const body = el('div');
  const back = el('a', { href: '#/machines' }, t('Machines'));
  put(main, window_ ? null : el('p', { class: 'quiet' }, back, ' / ', bdi(namespace)), head, top, actions, window_ ? null : el('nav', { 'aria-label': t('Views of this machine') }, el('ul', {}, tabs)), body);
  if (window_) actions.hidden = true;
  const context = { namespace, name, base, live, machine: () => live.items.get(key), window: Boolean(window_) };
  let inner = { update() {}, close() {} };
  const begin = { console: () => import('./console.js'), screen: () => import('./screen.js'), usage: () => import('./usage.js') }[tab];
  if (begin) {
    const module = await begin();
    inner = module.inside(body, context);
  } else {
    inner = { overview, events, snapshots, manifest }[tab](body, context);
  }
  let seen = '';
  let gone = false;
  const draw = () => {
    const machine = context.machine();
    if (!machine) {
      if (!live.loaded && !live.refusal) return;
      if (gone) return;
      gone = true;
      inner.close?.();
      put(body);
      put(top, el('div', { class: 'box' }, el('h2', {}, seen ? t('This machine was deleted') : t('There is no such machine')), command(`hikube-local get vm${flag(namespace)}`)));
      put(actions);
      head.focus();
      return;
    }
    if (gone) {
      dispatchEvent(new Event('hashchange')); // it is back: everything is drawn anew
      return;
    }
    if (seen !== machine.metadata.resourceVersion) {
      seen = machine.metadata.resourceVersion;
      header(top, machine);
      buttons(actions, machine);
      inner.update(machine);
    }
  };
  const stop = live.subscribe(draw);
  const clock = setInterval(() => {
    const machine = context.machine();
    if (!machine) return;
    const at = top.querySelector('.at');
    if (at) say(at, stageText(stateOf(machine)));
    inner.tick?.(machine);
  }, 1000);
  return () => {
    stop();
    clearInterval(clock);
    if (!gone) inner.close?.();
  };
}

function header(top, machine) {
  const state = stateOf(machine);
  const line = el('p', {}, stateMark(state), ' ', el('span', { class: 'at quiet' }, stageText(state)));
  const { cause } = machine.status ?? {};
  const refused = (machine.status?.conditions ?? []).find((c) => c.type === 'Ready' && c.status === 'False');
  if (refused) put(top, line, trouble({ message: refused.message }));
  else if (cause) put(top, line, trouble(cause, state.kind === 'bad'));
  else put(top, line);
}

// The cause, what shows it, and what to do
function trouble({ code, message, evidence = [], remedy }, bad = true) {
  return el(
    'div',
    { class: bad ? 'box' : 'box note' },
    el('h2', {}, bdi(message), code ? el('span', { class: 'quiet' }, ` [${safe(code)}]`) : null),
    evidence.length ? [el('p', {}, t('What shows it:')), el('pre', { tabindex: '0' }, safe(evidence.join('\n')))] : null,
    remedy ? el('p', {}, el('strong', {}, t('Next step:')), ' ', bdi(remedy)) : null,
  );
}

const busy = new Set(); // what was asked for and is not answered yet

function buttons(bar, machine) {
  const { namespace, name } = machine.metadata;
  const { printableStatus } = machine.status ?? {};
  const vm = (what) => subresource(namespace, 'virtualmachines', name, what);
  const vmi = (what) => subresource(namespace, 'virtualmachineinstances', name, what);
  const ours = (verb) => `hikube-local ${verb} ${name}${flag(namespace)}`;
  const button = (word, line, work, kind) => {
    const made = el('button', { type: 'button', class: kind, title: line, 'data-verb': word, 'aria-disabled': busy.has(word) }, word);
    made.addEventListener('click', async () => {
      if (busy.has(word)) return;
      busy.add(word);
      made.setAttribute('aria-disabled', 'true');
      await work();
      busy.delete(word);
      bar.querySelector(`[data-verb="${word}"]`)?.removeAttribute('aria-disabled');
    });
    return made;
  };
  const asked = (word, verb, path, words) => button(word, ours(verb), () => act(words, 'PUT', path));
  const on = printableStatus === 'Running' || printableStatus === 'Paused';
  const focused = bar.contains(document.activeElement) ? document.activeElement.dataset.verb : null;
  const made = [
    on ? asked(t('Stop'), 'stop', vm('stop'), t('Stopping {name}', { name })) : asked(t('Start'), 'start', vm('start'), t('Starting {name}', { name })),
    on ? asked(t('Restart'), 'restart', vm('restart'), t('Restarting {name}', { name })) : null,
    printableStatus === 'Running' ? asked(t('Pause'), 'pause', vmi('pause'), t('{name} is paused', { name })) : null,
    printableStatus === 'Paused' ? asked(t('Unpause'), 'unpause', vmi('unpause'), t('{name} goes on', { name })) : null,
    button(t('Reset'), ours('reset'), async () => {
      const text = t('Back to the end of the first boot. What it wrote since is lost.');
      if (await ask({ title: t('Reset {name}?', { name }), text, yes: t('Reset') })) await act(t('{name} was reset', { name }), 'PUT', beside(namespace, name, 'reset'));
    }),
    button(t('Delete'), ours('down'), async () => {
      const text = t('The machine goes; its disks stay.');
      if (await ask({ title: t('Delete {name}?', { name }), text, yes: t('Delete'), word: name })) {
        await act(t('Deleting {name}', { name }), 'DELETE', `${APPS}/namespaces/${encodeURIComponent(namespace)}/vminstances/${encodeURIComponent(name)}`);
      }
    }, 'danger'),
  ].filter(Boolean);
  const same = made.length === bar.children.length && made.every((b, i) => b.dataset.verb === bar.children[i].dataset.verb);
  if (same) return;
  put(bar, made);
  if (focused) (made.find((b) => b.dataset.verb === focused) ?? made[0]).focus();
}

// The boot's stages with their seconds; the slowest three are named so, as in the lab's report
function timeline(stages, begun, ended, failed) {
  const first = Date.parse(begun);
  const seen = stages.map((s, i) => {
    const from = (Date.parse(s.since) - first) / 1000;
    const next = stages[i + 1];
    const to = next ? (Date.parse(next.since) - first) / 1000 : ended ? from : (Date.now() - first) / 1000;
    return { ...s, from: Math.max(0, from), seconds: Math.max(0, to - from), last: !next };
  });
  const total = Math.max(1, ...seen.map((s) => s.from + s.seconds));
  return bars(seen.map((s) => ({ ...s, name: stageWord(s.stage), now: s.last && !ended, failed: s.last && failed })), total);
}

export function bars(rows, total) {
  const slow = [...rows].sort((a, b) => b.seconds - a.seconds).slice(0, 3).filter((s) => s.seconds >= total / 10);
  return el('ol', { class: 'stages' }, rows.map((s) => {
    const bar = el('svg', { svg: true, viewBox: '0 0 100 10', preserveAspectRatio: 'none', 'aria-hidden': 'true' },
      el('rect', { svg: true, x: (100 * s.from) / total, width: s.failed ? 100 - (100 * s.from) / total : Math.max(0.4, (100 * s.seconds) / total), height: 10 }));
    const word = s.failed ? t('failed here') : slow.includes(s) ? t('{n} s, slow', { n: s.seconds.toFixed(s.seconds < 10 ? 1 : 0) }) : `${s.seconds.toFixed(s.seconds < 10 ? 1 : 0)} s`;
    return el('li', { class: s.failed ? 'failed' : s.now ? 'now' : null }, el('span', {}, bdi(s.name)), bar, el('span', { class: 'num' }, word));
  }));
}

function overview(body, { namespace, name }) {
  const boot = el('section');
  const rest = el('div');
  put(body, boot, rest);
  const drawBoot = (machine) => {
    const found = machine.status?.boot;
    const state = stateOf(machine);
    if (!found?.stages.length) return put(boot);
    const stages = found.stages.filter((s) => s.stage !== 'done');
    // One whose cloud-init failed came to its end all the same; it is not done.
    const done = state.kind === 'bad' ? undefined : found.stages.find((s) => s.stage === 'done');
    const ended = Boolean(done) || state.kind !== 'busy';
    const drawn = done?.since ? [...stages, done] : stages;
    const list = timeline(drawn, found.start, ended, state.kind === 'bad');
    if (done?.since) list.lastChild.remove();
    const words = done && !done.since
      ? t('Nobody watched this boot.')
      : done
      ? t('Done after {n} s', { n: Math.round((Date.parse(done.since) - Date.parse(found.start)) / 1000) })
      : t('{n} of {of} stages seen', { n: stages.length, of: stagesOf(machine).length });
    put(boot, el('h2', {}, t('Boot')), el('p', { class: 'quiet' }, words), stages.length ? list : null);
  };
  return {
    tick: (machine) => stateOf(machine).at && drawBoot(machine),
    update(machine) {
      drawBoot(machine);
      const { spec = {}, status = {} } = machine;
      const facts = [
        ['Type', bdi(typeOf(machine))],
        ['Profile', bdi(spec.instanceProfile || 'ubuntu')],
        ['Run strategy', bdi(spec.runStrategy ?? '')],
        ['Address', bdi(addressOf(machine))],
        ['Names', bdi((status.addresses ?? []).filter((a) => a.type === 'Hostname').map((a) => a.address).join(', '))],
        ['Ports on this host', portsOf(machine).length ? portLinks(portsOf(machine)) : t('none')],
        ['Disks', bdi((spec.disks ?? []).map((d) => d.name ?? d).join(', '))],
        ['Accelerator', bdi(status.accelerator ?? '')],
        ['Guest agent', status.agentConnected ? t('connected') : t('not connected')],
        ['Age', age(since(machine.metadata.creationTimestamp))],
      ].filter(([, value]) => value.textContent !== '');
      const conditions = (status.conditions ?? []).map((c) => row(bdi(c.type), bdi(c.status), bdi(c.reason), bdi(c.message), age(since(c.lastTransitionTime))));
      const differences = status.differences ?? [];
      put(
        rest,
        el('h2', {}, t('Facts')),
        el('dl', {}, facts.flatMap(([word, value]) => [el('dt', {}, t(word)), el('dd', {}, value)])),
        el('h2', {}, t('Commands')),
        command(`hikube-local ssh ${name}${flag(namespace)}`),
        command(`kubectl -n ${namespace} get vminstance ${name} -o yaml`),
        command(`hikube-local describe vm ${name}${flag(namespace)}`),
        el('h2', {}, t('Conditions')),
        table(['Type', 'Status', 'Reason', 'Message', 'Since'].map((w) => t(w)), conditions, t('Conditions')),
        differences.length ? [
          el('h2', {}, t('Differences from Hikube')),
          el('ul', {}, differences.map((d) => el('li', {}, el('code', {}, safe(d.code)), ' ', bdi(d.message)))),
        ] : null,
      );
    },
  };
}

const MOST = 500; // events that are kept

function events(body, { namespace, name }) {
  const path = `/api/v1/namespaces/${encodeURIComponent(namespace)}/events`;
  const live = new Live(path, `involvedObject.kind=VMInstance,involvedObject.name=${name}`);
  const list = el('div');
  put(body, list, command(`hikube-local events vm/${name}${flag(namespace)}`));
  const stop = live.subscribe(() => {
    if (live.refusal) return put(list, el('p', { class: 'bad' }, safe(live.refusal.message)));
    for (const name of [...live.items.keys()].slice(0, -MOST)) live.items.delete(name);
    const found = [...live.items.values()].sort((a, b) => Number(b.metadata.resourceVersion) - Number(a.metadata.resourceVersion));
    const rows = found.map((e) => row(cellTime(e.firstTimestamp), el('span', { class: e.type === 'Warning' ? 'bad' : null }, bdi(e.reason)), bdi(e.message)));
    return put(list, rows.length ? table([t('Time'), t('Reason'), t('Message')], rows, t('Events')) : el('p', {}, t('There are no events yet.')));
  });
  return {
    update() {},
    close() {
      stop();
      live.close();
    },
  };
}

const cellTime = (timestamp) => {
  const when = new Date(timestamp);
  return el('time', { datetime: timestamp }, when.toLocaleString(document.documentElement.lang, { dateStyle: 'short', timeStyle: 'medium' }));
};

function snapshots(body, { namespace, name }) {
  const path = beside(namespace, name, 'snapshots');
  const list = el('div');
  const field = el('input', { type: 'text', 'aria-label': t('Name of the snapshot'), placeholder: t('name (or none)') });
  const take = el('button', { type: 'submit' }, t('Take a snapshot'));
  const form = el('form', { class: 'bar' }, field, take);
  put(body, form, list, command(`hikube-local snapshot create ${name}${flag(namespace)}`));
  const load = async () => {
    try {
      const { items } = await get(path);
      const rows = items.map((s) => row(bdi(s.name), s.memory ? t('with memory') : t('disks alone'), size(s.size), age(since(s.created)), [
        el('button', {
          type: 'button',
          onclick: async () => {
            const text = t('What it wrote since is lost.');
            if (await ask({ title: t('Go back to {name}?', { name: s.name }), text, yes: t('Restore') })) await act(t('{name} is back', { name }), 'PUT', `${path}/${encodeURIComponent(s.name)}/restore`);
          },
        }, t('Restore')),
        ' ',
        el('button', {
          type: 'button',
          class: 'danger',
          onclick: async () => {
            const text = t('The machine itself is not changed.');
            if (await ask({ title: t('Delete the snapshot {name}?', { name: s.name }), text, yes: t('Delete') })) {
              await act(t('Deleted'), 'DELETE', `${path}/${encodeURIComponent(s.name)}`);
              await load();
            }
          },
        }, t('Delete')),
      ]));
      put(list, rows.length ? table([t('Name'), t('What'), t('Size'), t('Age'), t('Actions')], rows, t('Snapshots')) : el('p', {}, t('There are no snapshots yet.')));
    } catch (e) {
      put(list, el('p', { class: 'bad' }, safe(e.message)));
      form.hidden = e.code === 422;
    }
  };
  form.addEventListener('submit', async (e) => {
    e.preventDefault();
    take.disabled = true;
    if (await act(t('The snapshot was taken'), 'POST', path, { name: field.value })) field.value = '';
    take.disabled = false;
    await load();
  });
  load();
  return { update() {} };
}

// JSON values as YAML that reads back the same
function yaml(value, indent = '') {
  if (Array.isArray(value)) {
    if (!value.length) return ' []';
    return value.map((v) => `\n${indent}-${typeof v === 'object' && v ? yaml(v, indent + '  ').replace(/^\n\s*/, ' ') : yaml(v, indent + '  ')}`).join('');
  }
  if (value && typeof value === 'object') {
    const rows = Object.entries(value);
    if (!rows.length) return ' {}';
    return rows.map(([k, v]) => `\n${indent}${scalar(k)}:${yaml(v, indent + '  ')}`).join('');
  }
  if (typeof value === 'string' && value.includes('\n') && !/[^\n\t\x20-\x7e\xa0-\ud7ff\u{e000}-\u{fefe}\u{10000}-\u{10ffff}]|^\s|\n\n$/u.test(value)) {
    return ` |${value.endsWith('\n') ? '' : '-'}${value.replace(/\n$/, '').split('\n').map((l) => (l ? `\n${indent}${l}` : '\n')).join('')}`;
  }
  return ` ${typeof value === 'string' ? scalar(value) : JSON.stringify(value)}`;
}

const scalar = (text) =>
  /^[A-Za-z_/][\w./-]*( [\w./-]+)*$/.test(text) && !/^(true|false|yes|no|on|off|null|y|n)$/i.test(text) ? text : JSON.stringify(text);

function manifest(body, { namespace, name }) {
  const text = el('pre', { tabindex: '0' });
  put(body, text, command(`kubectl -n ${namespace} get vminstance ${name} -o yaml`));
  return {
    update(machine) {
      const { name: own, namespace: space, labels, annotations = {} } = machine.metadata;
      const { 'kubectl.kubernetes.io/last-applied-configuration': applied, ...rest } = annotations;
      // Without what is filled in as empty; where kubectl applied it, what its user wrote.
      let spec = Object.fromEntries(Object.entries(machine.spec).filter(([, v]) => v !== '' && !(v && typeof v === 'object' && !Object.keys(v).length)));
      try {
        if (applied) spec = JSON.parse(applied).spec;
      } catch {
        // what is there is shown
      }
      const metadata = { name: own, namespace: space, ...(labels ? { labels } : {}), ...(Object.keys(rest).length ? { annotations: rest } : {}) };
      // All of it, however long: this is what its user wrote.
      text.textContent = shown(yaml({ apiVersion: machine.apiVersion, kind: machine.kind, metadata, spec }).slice(1));
    },
  };
}
