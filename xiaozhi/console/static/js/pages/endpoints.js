/**
 * The language model's endpoints: see, edit, try, save.
 * @module
 */
import { ApiError, api, listOf } from '../api.js';
import { fill, h } from '../dom.js';
import { named, t } from '../i18n.js';
import { problems, tellSaved } from '../settings_form.js';
import { showTrouble, tryStage } from '../trial.js';
import { button, confirmed, dialog, empty, field, input, loading, note, select, tag, toggle } from '../ui.js';

/** What an endpoint may speak. @type {[string, string][]} */
const KINDS = [
  ['openai', 'OpenAI, chat completions'],
  ['responses', 'OpenAI, responses'],
  ['dify', 'Dify'],
  ['coze', 'Coze 扣子'],
  ['fastgpt', 'FastGPT'],
  ['ragflow', 'RAGFlow'],
  ['home-assistant', 'Home Assistant'],
];

/** @param {AbortSignal} signal */
export function endpointsSection(signal) {
  const place = h('div', {});
  const load = () =>
    loading(place, async () => {
      const [endpoints, presets] = await Promise.all([api('llm-endpoints', { signal }), api('presets', { signal })]);
      return section(listOf(endpoints, 'endpoints'), listOf(presets, 'presets'), load, endpoints.overridden);
    }, 220);
  load();
  return place;
}

/**
 * @param {any[]} endpoints
 * @param {any[]} presets
 * @param {() => void} reload
 * @param {boolean} overridden settings.toml has other endpoints
 */
function section(endpoints, presets, reload, overridden) {
  const save = async (/** @type {any[]} */ rows) => {
    tellSaved(await api('llm-endpoints', { method: 'PUT', body: { endpoints: rows } }));
    reload();
  };
  const edit = (/** @type {any} */ endpoint, /** @type {number} */ index) =>
    endpointDialog(endpoint, presets, endpoints.filter((_, at) => at !== index).map((each) => each.name), (changed) => save(index < 0 ? [...endpoints, changed] : endpoints.map((each, at) => (at === index ? changed : each))));
  const add = button(t('endpoints.add'), { icon: 'plus', kind: endpoints.length ? '' : 'primary', onClick: () => edit({ weight: 1, tier: 'auto' }, -1) });
  const cards = endpoints.map((endpoint, index) => {
    const result = h('div', { class: 'result', 'aria-live': 'polite' });
    return h(
      'article',
      { class: 'card endpoint', data: { endpoint: endpoint.name } },
      h('div', { class: 'row' }, h('h3', { class: 'grow clip', text: endpoint.name }), tag(named('tier', endpoint.tier === 'auto' ? (endpoint.place ?? 'auto') : endpoint.tier))),
      h('div', { class: 'where' }, h('div', { class: 'mono clip', text: endpoint.model, title: endpoint.model }), h('div', { class: 'clip', text: endpoint.base_url, title: endpoint.base_url })),
      h('div', { class: 'row' }, tag(t('endpoints.weight', { n: endpoint.weight ?? 1 })), endpoint.max_concurrent && tag(t('endpoints.at_once', { n: endpoint.max_concurrent })), keyTag(endpoint)),
      result,
      h(
        'div',
        { class: 'row' },
        button(t('test'), { icon: 'test', onClick: () => tryStage('llm', { endpoint: endpoint.name }, result) }),
        button(t('edit'), { icon: 'edit', onClick: () => edit(endpoint, index) }),
        h('span', { class: 'grow' }),
        button(t('delete'), {
          icon: 'bin',
          kind: 'quiet danger',
          square: true,
          onClick: async () => {
            if (!(await confirmed(t('endpoints.delete'), t('endpoints.delete_sure', { name: endpoint.name }), t('delete')))) return;
            await save(endpoints.filter((_, at) => at !== index)).catch((error) => fill(result, problems(error)));
          },
        }),
      ),
    );
  });
  return h(
    'section',
    { class: 'stack' },
    h('div', { class: 'row' }, h('div', { class: 'grow', style: { 'flex-basis': '260px' } }, h('h2', { text: t('endpoints.title') }), h('p', { class: 'muted small', text: t('endpoints.hint') })), add),
    overridden &&
      note(t('endpoints.overridden'), 'warn', ' ', button(t('settings.remove_override'), { kind: 'quiet', onClick: () => removeOverride().then(reload) })),
    cards.length ? h('div', { class: 'grid' }, ...cards) : h('div', { class: 'card' }, empty('models', t('endpoints.none'), t('endpoints.none_hint'))),
  );
}

async function removeOverride() {
  tellSaved(await api('settings', { method: 'PUT', body: { changes: {}, unset: ['llm.endpoints'] } }));
}

/** @param {any} endpoint */
function keyTag(endpoint) {
  if (endpoint.api_key_set || endpoint.api_key === 'set') return tag(t('endpoints.key_set'), 'good');
  if (endpoint.key_found) return tag(t('endpoints.key_env', { name: endpoint.api_key_env }), 'good');
  if (endpoint.api_key_env) return tag(t('endpoints.key_missing', { name: endpoint.api_key_env }), 'warn');
  return tag(t('endpoints.key_none'));
}

/**
 * @param {any} endpoint
 * @param {any[]} presets
 * @param {string[]} taken names of the others
 * @param {(endpoint: any) => Promise<void>} save
 */
function endpointDialog(endpoint, presets, taken, save) {
  const preset = select([['', t('endpoints.no_preset')], ...presets.map((each) => /** @type {[string, string]} */ ([each.name, each.title]))], endpoint.preset ?? '', { name: 'preset' });
  const kind = select(KINDS, endpoint.kind ?? 'openai', { name: 'kind' });
  const name = input({ value: endpoint.name, maxlength: 60, required: true, name: 'name' });
  const url = input({ value: endpoint.base_url, inputmode: 'url', placeholder: 'https://', name: 'base_url' });
  const model = input({ value: endpoint.model, name: 'model' });
  const key = input({ type: 'password', autocomplete: 'new-password', placeholder: endpoint.api_key_set ? t('settings.secret_set') : t('settings.secret_none'), name: 'api_key' });
  const keyEnv = input({ value: endpoint.api_key_env, placeholder: 'OPENAI_API_KEY', name: 'api_key_env' });
  const weight = input({ value: endpoint.weight ?? 1, inputmode: 'decimal', name: 'weight' });
  const most = input({ value: endpoint.max_concurrent ?? '', inputmode: 'numeric', placeholder: t('settings.no_limit'), name: 'max_concurrent' });
  const tokens = input({ value: endpoint.max_tokens ?? '', inputmode: 'numeric', placeholder: t('settings.no_limit') });
  const heat = input({ value: endpoint.temperature ?? '', inputmode: 'decimal', placeholder: t('settings.auto') });
  const price = input({ value: endpoint.price ?? '', inputmode: 'decimal', placeholder: t('settings.auto') });
  const tier = select(['auto', 'edge', 'cloud'].map((each) => [each, t(`tier.${each}`)]), endpoint.tier ?? 'auto');
  const vision = toggle(Boolean(endpoint.vision), { name: 'vision' });
  const thinks = select(['', 'true', 'false'].map((each) => [each, t(`endpoints.thinks_${each || 'auto'}`)]), String(endpoint.thinks ?? ''), { name: 'thinks' });
  const extra = h('textarea', { class: 'input mono', rows: 2, spellcheck: 'false', name: 'extra_body', value: written(endpoint.extra_body) });
  const headers = h('textarea', { class: 'input mono', rows: 2, spellcheck: 'false', name: 'extra_headers', value: Object.keys(endpoint.extra_headers ?? {}).map((each) => `${each}:`).join('\n') });
  const result = h('div', { class: 'result', 'aria-live': 'polite', data: { role: 'result' } });
  const listed = h('div', { class: 'result', 'aria-live': 'polite', data: { role: 'models' } });
  const problem = h('div', { class: 'grow', 'aria-live': 'polite', data: { role: 'problem' } });
  // Of the endpoint as it was saved: its key and its headers are kept while this is true.
  let kept = Boolean(endpoint.name);

  preset.addEventListener('change', () => {
    // Nothing of one service goes to another: neither its name, nor its address, nor its key.
    const known = presets.find((each) => each.name === preset.value) ?? {};
    kept = false;
    key.value = '';
    key.placeholder = t('settings.secret_none');
    name.value = freeName(known.name ?? '', taken);
    [url.value, model.value, keyEnv.value] = [known.base_url ?? '', known.model ?? '', known.api_key_env ?? ''];
    kind.value = known.kind ?? 'openai';
    extra.value = written(known.extra_body);
    headers.value = '';
    [vision.checked, thinks.value, tier.value, price.value] = [Boolean(known.vision), '', 'auto', ''];
    for (const each of [result, listed, problem]) fill(each);
  });
  const values = () => ({
    ...endpoint,
    preset: preset.value || null,
    kind: kind.value,
    name: name.value.trim(),
    base_url: url.value.trim(),
    model: model.value.trim(),
    api_key: key.value.trim() || (kept ? null : ''),
    api_key_env: keyEnv.value.trim(),
    weight: numberOf(weight) ?? 1,
    max_concurrent: numberOf(most),
    max_tokens: numberOf(tokens),
    temperature: numberOf(heat),
    price: numberOf(price),
    tier: tier.value,
    vision: vision.checked,
    thinks: thinks.value === '' ? null : thinks.value === 'true',
    extra_body: readBody(extra.value),
    extra_headers: readHeaders(headers.value, kept),
    was: kept ? (endpoint.was ?? endpoint.name) : '',
  });
  /**
   * Do something with what is entered; what is wrong with it is said in `place`, beside the button.
   * @param {Element} place
   * @param {(row: any) => Promise<void>} work
   */
  const withValues = async (place, work) => {
    try {
      await work(values());
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      fill(place, problems(error));
    }
  };
  const list = button(t('endpoints.list'), { icon: 'search', data: { role: 'list' }, onClick: () => withValues(listed, (row) => offerModels(row, model, listed)) });
  const body = h(
    'div',
    { class: 'stack' },
    h(
      'div',
      { class: 'fields' },
      field(t('endpoints.preset'), preset, { hint: t('endpoints.preset_hint') }),
      field(t('endpoints.kind'), kind, { hint: t('endpoints.kind_hint') }),
      field(t('endpoints.name'), name),
      field(t('endpoints.url'), url, { wide: true }),
      field(t('endpoints.key'), key),
      field(t('endpoints.key_variable'), keyEnv, { hint: t('endpoints.key_variable_hint') }),
      field(t('endpoints.model'), model, { hint: t('endpoints.model_hint') }),
      h('div', { class: 'field' }, list, listed),
      field(t('endpoints.vision'), vision, { hint: t('endpoints.vision_hint') }),
      field(t('endpoints.thinks'), thinks, { hint: t('endpoints.thinks_hint') }),
      field(t('endpoints.tier'), tier, { hint: t('endpoints.tier_hint') }),
      field(t('endpoints.share'), weight, { hint: t('endpoints.share_hint') }),
      field(t('endpoints.most'), most),
      field(t('endpoints.tokens'), tokens),
      field(t('endpoints.temperature'), heat),
      field(t('endpoints.price'), price, { hint: t('endpoints.price_hint') }),
      field(t('endpoints.body'), extra, { hint: t('endpoints.body_hint'), wide: true }),
      field(t('endpoints.headers'), headers, { hint: t('endpoints.headers_hint'), wide: true }),
    ),
    h('div', { class: 'row' }, button(t('test'), { icon: 'test', data: { role: 'test' }, onClick: () => withValues(result, (row) => tryStage('llm', { endpoint: row }, result)) }), result),
  );
  const shown = dialog(endpoint.name || t('endpoints.add'), body, {
    actions: [
      problem,
      button(t('cancel'), { onClick: () => shown.close() }),
      button(t('save'), {
        kind: 'primary',
        icon: 'check',
        onClick: () =>
          withValues(problem, async (row) => {
            await save(row);
            shown.close();
          }),
      }),
    ],
  });
}

/**
 * @param {string} wanted
 * @param {string[]} taken
 */
function freeName(wanted, taken) {
  let number = 1;
  while (wanted && taken.includes(number > 1 ? `${wanted}-${number}` : wanted)) number += 1;
  return number > 1 ? `${wanted}-${number}` : wanted;
}

/**
 * Ask an endpoint for its models, and let one be chosen.
 * @param {any} row as it is entered
 * @param {HTMLInputElement} model takes the choice
 * @param {Element} place
 */
async function offerModels(row, model, place) {
  fill(place, h('span', { class: 'muted', text: t('trial.running') }));
  const answer = await api('llm-endpoints/models', { method: 'POST', body: { endpoint: row } });
  if (!answer.ok) showTrouble(place, answer);
  else if (!answer.models.length) fill(place, h('span', { class: 'muted', text: t('endpoints.list_none') }));
  else {
    const choice = select([['', t('endpoints.list_choose', { n: answer.models.length })], ...answer.models.map((/** @type {string} */ each) => [each, each])], answer.models.includes(model.value) ? model.value : '', { 'aria-label': t('endpoints.model') });
    choice.addEventListener('change', () => {
      if (choice.value) model.value = choice.value;
    });
    fill(place, choice);
  }
}

/** @param {any} body */
const written = (body) => (body && Object.keys(body).length ? JSON.stringify(body, null, 1) : '');

/** @param {string} text */
function readBody(text) {
  if (!text.trim()) return {};
  try {
    const body = JSON.parse(text);
    if (body && typeof body === 'object' && !Array.isArray(body)) return body;
  } catch {
    // said below
  }
  throw new ApiError(`${t('endpoints.body')}: ${t('settings.not_json')}`);
}

/**
 * @param {string} text `Name: value`, one a line
 * @param {boolean} kept an empty value stands for the one that was saved
 */
function readHeaders(text, kept) {
  /** @type {Record<string, string | null>} */
  const headers = {};
  for (const line of text.split('\n').map((each) => each.trim()).filter(Boolean)) {
    const at = line.search(/[:：]/);
    if (at < 1) throw new ApiError(t('endpoints.headers_form', { line }));
    const value = line.slice(at + 1).trim();
    headers[line.slice(0, at).trim()] = value || (kept ? null : '');
  }
  return headers;
}

/**
 * @param {HTMLInputElement} control
 * @returns {number | null} null where it is empty
 */
function numberOf(control) {
  const text = control.value.trim();
  return text === '' ? null : Number(text);
}
