/**
 * The language model's endpoints: see, edit, try, save.
 * @module
 */
import { ApiError, api, listOf } from '../api.js';
import { fill, h } from '../dom.js';
import { named, t } from '../i18n.js';
import { tellSaved } from '../settings_form.js';
import { tryStage } from '../trial.js';
import { button, confirmed, dialog, empty, field, input, loading, note, select, tag } from '../ui.js';

/** @param {AbortSignal} signal */
export function endpointsSection(signal) {
  const place = h('div', {});
  const load = () =>
    loading(place, async () => {
      const [endpoints, presets] = await Promise.all([api('llm-endpoints', { signal }), api('presets', { signal })]);
      return section(listOf(endpoints, 'endpoints'), listOf(presets, 'presets'), load);
    }, 220);
  load();
  return place;
}

/**
 * @param {any[]} endpoints
 * @param {any[]} presets
 * @param {() => void} reload
 */
function section(endpoints, presets, reload) {
  const save = async (/** @type {any[]} */ rows) => {
    tellSaved(await api('llm-endpoints', { method: 'PUT', body: { endpoints: rows } }));
    reload();
  };
  const edit = (/** @type {any} */ endpoint, /** @type {number} */ index) =>
    endpointDialog(endpoint, presets, (changed) => save(index < 0 ? [...endpoints, changed] : endpoints.map((each, at) => (at === index ? changed : each))));
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
            if (await confirmed(t('endpoints.delete'), t('endpoints.delete_sure', { name: endpoint.name }), t('delete'))) await save(endpoints.filter((_, at) => at !== index));
          },
        }),
      ),
    );
  });
  return h(
    'section',
    { class: 'stack' },
    h('div', { class: 'row' }, h('div', { class: 'grow', style: { 'flex-basis': '260px' } }, h('h2', { text: t('endpoints.title') }), h('p', { class: 'muted small', text: t('endpoints.hint') })), add),
    cards.length ? h('div', { class: 'grid' }, ...cards) : h('div', { class: 'card' }, empty('models', t('endpoints.none'), t('endpoints.none_hint'))),
  );
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
 * @param {(endpoint: any) => Promise<void>} save
 */
function endpointDialog(endpoint, presets, save) {
  const preset = select([['', t('endpoints.no_preset')], ...presets.map((each) => /** @type {[string, string]} */ ([each.name, each.title]))], endpoint.preset ?? '');
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
  const result = h('div', { class: 'result', 'aria-live': 'polite' });
  const problem = h('div', { 'aria-live': 'polite' });
  let extra = endpoint.extra_body ?? {};

  preset.addEventListener('change', () => {
    const known = presets.find((each) => each.name === preset.value);
    if (!known) return;
    name.value ||= known.name;
    [url.value, model.value, keyEnv.value] = [known.base_url, known.model, known.api_key_env];
    extra = known.extra_body ?? {};
  });
  const values = () => ({
    ...endpoint,
    preset: preset.value || null,
    name: name.value.trim(),
    base_url: url.value.trim(),
    model: model.value.trim(),
    api_key: key.value || null,
    api_key_env: keyEnv.value.trim(),
    weight: numberOf(weight) ?? 1,
    max_concurrent: numberOf(most),
    max_tokens: numberOf(tokens),
    temperature: numberOf(heat),
    price: numberOf(price),
    tier: tier.value,
    extra_body: extra,
    ...(endpoint.name && { was: endpoint.was ?? endpoint.name }),
  });
  const body = h(
    'div',
    { class: 'stack' },
    h(
      'div',
      { class: 'fields' },
      field(t('endpoints.preset'), preset, { hint: t('endpoints.preset_hint') }),
      field(t('endpoints.name'), name),
      field(t('endpoints.url'), url, { wide: true }),
      field(t('endpoints.model'), model),
      field(t('endpoints.key'), key),
      field(t('endpoints.key_variable'), keyEnv, { hint: t('endpoints.key_variable_hint') }),
      field(t('endpoints.tier'), tier, { hint: t('endpoints.tier_hint') }),
      field(t('endpoints.share'), weight, { hint: t('endpoints.share_hint') }),
      field(t('endpoints.most'), most),
      field(t('endpoints.tokens'), tokens),
      field(t('endpoints.temperature'), heat),
      field(t('endpoints.price'), price, { hint: t('endpoints.price_hint') }),
    ),
    h('div', { class: 'row' }, button(t('test'), { icon: 'test', onClick: () => tryStage('llm', { endpoint: values() }, result) }), result),
    problem,
  );
  const shown = dialog(endpoint.name || t('endpoints.add'), body, {
    actions: [
      button(t('cancel'), { onClick: () => shown.close() }),
      button(t('save'), {
        kind: 'primary',
        icon: 'check',
        onClick: async () => {
          try {
            await save(values());
            shown.close();
          } catch (error) {
            if (!(error instanceof ApiError)) throw error;
            fill(problem, note('', 'bad', h('ul', {}, ...(error.errors.length ? error.errors : [error.message]).map((each) => h('li', { text: each })))));
          }
        },
      }),
    ],
  });
}

/**
 * @param {HTMLInputElement} control
 * @returns {number | null} null where it is empty
 */
function numberOf(control) {
  const text = control.value.trim();
  return text === '' ? null : Number(text);
}
