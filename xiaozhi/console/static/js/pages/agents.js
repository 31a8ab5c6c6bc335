/**
 * The agents: who speaks from the devices.
 * @module
 */
import { ApiError, api, listOf } from '../api.js';
import { fill, h } from '../dom.js';
import { language, t } from '../i18n.js';
import { button, confirmed, dialog, empty, field, input, loading, note, pageHead, searchBox, select, tag } from '../ui.js';

const LANGUAGES = ['auto', 'zh', 'en', 'ja', 'ko', 'yue'];
const LONGEST_PROMPT = 8000;

/** @param {import('../app.js').Context} context */
export function agentsPage({ signal }) {
  const place = h('div', {});
  const grid = h('div', {});
  /** @type {any[]} */
  let agents = [];
  /** @type {any[]} */
  let voices = [];
  /** @type {{ recognizers: string[], endpoints: string[], voices: string[] }} */
  let choices = { recognizers: [], endpoints: [], voices: [] };
  let words = '';
  const load = async () => {
    const [answer, known] = await Promise.all([api('agents', { signal }), api('voices', { signal })]);
    agents = listOf(answer, 'agents');
    voices = listOf(known, 'voices');
    choices = answer.choices ?? choices;
    draw();
  };
  const open = (/** @type {any} */ agent) => agentDialog(agent, voices, choices, load);
  const draw = () => {
    const found = agents.filter((agent) => !words || [agent.name, agent.about, ...(agent.aliases ?? [])].join(' ').toLowerCase().includes(words));
    fill(grid, found.length ? h('div', { class: 'grid' }, ...found.map((agent) => agentCard(agent, open))) : h('div', { class: 'card' }, empty('agents', t(words ? 'nothing_found' : 'agents.none'))));
  };
  loading(place, async () => {
    await load();
    return grid;
  }, 360);
  const search = searchBox(t('search'), (value) => {
    words = value;
    draw();
  });
  const add = button(t('agents.add'), { icon: 'plus', kind: 'primary', onClick: () => open({ language: 'auto', tools: ['*'] }) });
  return [pageHead(t('nav.agents'), search, add), h('p', { class: 'muted small', text: t('agents.hint') }), place];
}

/**
 * @param {any} agent
 * @param {(agent: any) => void} open
 */
function agentCard(agent, open) {
  return h(
    'article',
    { class: 'card thing', data: { agent: agent.name } },
    h(
      'div',
      { class: 'stack', style: { gap: '6px' } },
      h('div', { class: 'title' }, h('h3', { class: 'grow clip', text: agent.name }), agent.default && tag(t('agents.is_default'), 'accent'), changedHere(agent) && tag(t(`origin.${agent.origin}`)), agent.devices > 0 && tag(t(agent.devices === 1 ? 'agents.device' : 'agents.devices', { n: agent.devices }))),
      h('p', { class: 'about', text: inLanguage(agent.about ?? '') }),
      agent.aliases?.length > 0 && h('p', { class: 'muted small', text: t('agents.also', { names: agent.aliases.join(t('list.comma')) }) }),
      h('p', { class: 'prompt', text: agent.prompt || t('agents.settings_prompt') }),
      ...(agent.problems ?? []).map((/** @type {string} */ problem) => note(t('agents.problem', { problem }), 'warn')),
    ),
    h(
      'div',
      { class: 'foot' },
      h('div', { class: 'grow clip muted small', text: [t(`language.${agent.language || 'auto'}`), agent.voice?.name].filter(Boolean).join(' · ') }),
      button(t('edit'), { icon: 'edit', onClick: () => open(agent) }),
    ),
  );
}

/**
 * The half that is in the language of the page, of a text that says itself in Chinese and, behind a semicolon, in English.
 * @param {string} text
 */
function inLanguage(text) {
  const halves = text.split(/\s*[；;]\s*/);
  const fits = halves.filter((half) => /[\u4e00-\u9fff]/.test(half) === (language() === 'zh'));
  return halves.length === 2 && fits.length === 1 ? fits[0] : text;
}

/**
 * Whether it was made or changed here, and can be deleted or reset.
 * @param {any} agent
 */
const changedHere = (agent) => agent.origin === 'own' || agent.origin === 'changed';

/**
 * @param {any} agent
 * @param {any[]} voices
 * @param {{ recognizers: string[], endpoints: string[], voices: string[] }} choices
 * @param {() => Promise<void>} load
 */
function agentDialog(agent, voices, choices, load) {
  const voice = agent.voice ?? {};
  const lines = (/** @type {string} */ text) => text.split(/[\n,，、]/).map((each) => each.trim()).filter(Boolean);
  const list = h('datalist', { id: 'agent-voices' }, ...voices.map((each) => h('option', { value: each.name, text: [each.engine, each.language, each.gender].filter(Boolean).join(' · ') })));
  const name = input({ value: agent.name, maxlength: 40, required: true });
  const aliases = input({ value: (agent.aliases ?? []).join('、') });
  const about = input({ value: agent.about, maxlength: 200 });
  const prompt = h('textarea', { class: 'input', rows: 11, maxlength: LONGEST_PROMPT });
  prompt.value = agent.prompt ?? '';
  const speech = select(LANGUAGES.map((each) => [each, t(`language.${each}`)]), agent.language ?? 'auto');
  const speaks = input({ value: voice.name, list: 'agent-voices', placeholder: t('settings.auto') });
  const gender = select([['', t('settings.auto')], ['female', t('gender.female')], ['male', t('gender.male')]], voice.gender ?? '');
  const rate = input({ type: 'number', min: -50, max: 100, step: 5, value: voice.rate_percent ?? 0 });
  const pitch = input({ type: 'number', min: -12, max: 12, step: 1, value: voice.pitch_semitones ?? 0 });
  const one = (/** @type {string[]} */ names, value = '') => select([['', t('agents.servers')], ...names.map((each) => /** @type {[string, string]} */ ([each, each]))], value);
  const recognizer = one(choices.recognizers, agent.recognizer);
  const endpoint = one(choices.endpoints, agent.endpoint);
  const voiceEngine = one(choices.voices, voice.engine);
  const tier = select([['', t('settings.auto')], ['edge', t('tier.edge')], ['cloud', t('tier.cloud')]], agent.tier ?? '');
  const tools = input({ value: (agent.tools ?? ['*']).join('、') });
  const wake = input({ value: agent.wake_reply, maxlength: 200 });
  const greeting = input({ value: agent.greeting, maxlength: 200 });
  const goodbye = input({ value: agent.goodbye, maxlength: 200 });
  const problem = h('div', { 'aria-live': 'polite' });
  const values = () => ({
    name: name.value.trim(),
    aliases: lines(aliases.value),
    about: about.value.trim(),
    prompt: prompt.value,
    language: speech.value,
    voice: { engine: voiceEngine.value, name: speaks.value.trim(), gender: gender.value, rate_percent: Number(rate.value) || 0, pitch_semitones: Number(pitch.value) || 0 },
    recognizer: recognizer.value,
    endpoint: endpoint.value,
    tier: tier.value,
    tools: lines(tools.value),
    wake_reply: wake.value.trim(),
    greeting: greeting.value.trim(),
    goodbye: goodbye.value.trim(),
  });
  const save = async () => {
    const changed = values();
    try {
      await api(`agents/${encodeURIComponent(changed.name)}`, { method: 'PUT', body: changed });
      if (agent.name && agent.name !== changed.name && agent.origin === 'own') await api(`agents/${encodeURIComponent(agent.name)}`, { method: 'DELETE' });
      shown.close();
      await load();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      fill(problem, note(error.message, 'bad'));
      problem.scrollIntoView({ block: 'nearest' });
    }
  };
  const body = h(
    'div',
    { class: 'stack' },
    h(
      'div',
      { class: 'fields' },
      field(t('agents.name'), name),
      field(t('agents.aliases'), aliases, { hint: t('agents.aliases_hint') }),
      field(t('agents.about'), about, { wide: true }),
      field(t('agents.prompt'), prompt, { wide: true, hint: t('agents.prompt_hint') }),
      field(t('agents.language'), speech),
      field(t('agents.recognizer'), recognizer, { hint: t('agents.engine_hint') }),
      field(t('agents.endpoint'), endpoint),
      field(t('agents.tier'), tier),
      field(t('agents.voice_engine'), voiceEngine),
      field(t('agents.voice'), speaks),
      field(t('agents.gender'), gender),
      field(t('agents.rate'), rate),
      field(t('agents.pitch'), pitch),
      field(t('agents.tools'), tools, { hint: t('agents.tools_hint') }),
      field(t('agents.wake_reply'), wake, { wide: true }),
      field(t('agents.greeting'), greeting, { wide: true }),
      field(t('agents.goodbye'), goodbye, { wide: true }),
      list,
    ),
    problem,
  );
  const erase = button(t(agent.origin === 'own' ? 'delete' : 'agents.reset'), {
    icon: 'bin',
    kind: 'danger quiet',
    onClick: async () => {
      const kind = agent.origin === 'own' ? 'delete' : 'reset';
      if (!(await confirmed(t(`agents.${kind}`), t(`agents.${kind}_sure`, { name: agent.name }), t(kind === 'delete' ? 'delete' : 'agents.reset')))) return;
      await api(`agents/${encodeURIComponent(agent.name)}`, { method: 'DELETE' });
      shown.close();
      await load();
    },
  });
  const shown = dialog(agent.name || t('agents.add'), body, {
    actions: [changedHere(agent) && erase, h('span', { class: 'grow' }), button(t('cancel'), { onClick: () => shown.close() }), button(t('save'), { kind: 'primary', icon: 'check', onClick: save })].filter(Boolean),
  });
}
