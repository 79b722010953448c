// `promtool test rules`: each alert raised after its hold-up, held through its hold-down, and cleared.
// Rendered and run by `cargo xtask mixin --check`.
local mixin = import 'mixin.libsonnet';

local alerts = {
  [rule.alert]: rule
  for group in mixin.prometheusAlerts.groups
  for rule in group.rules
};

local here = { instance: 'edge1:9798', job: 'sip-filter' };
local labelled(name, labels) = '%s{%s}' % [name, std.join(',', ['%s="%s"' % [key, labels[key]] for key in std.objectFields(labels)])];
local series(name, values, labels={}) = { series: labelled(name, here + labels), values: values };

local simulate = series('sip_filter_simulate', '1x80');
local present = series('sip_filter_build_info', '1x80', { version: '1' });

// What Alertmanager is told. `labels` are those of the expression's result.
local firing(name, labels=here, mode='simulate') =
  local rule = alerts[name];
  local written(text) = std.foldl(
    function(text, label) std.strReplace(text, '{{ $labels.%s }}' % label, labels[label]),
    std.objectFields(labels),
    text
  );
  {
    exp_labels: labels + rule.labels + (if std.objectHas(labels, 'instance') then { host: 'edge1' } else {}),
    exp_annotations: rule.annotations {
      summary: written(super.summary),
      [if std.objectHas(rule.annotations, 'mode') then 'mode']: mode,
    },
  };

local at(name, time, expected) = { eval_time: time, alertname: name, exp_alerts: expected };

local test(title, input, checks, exprs=[]) = {
  name: title,
  interval: '1m',
  input_series: input,
  alert_rule_test: checks,
  promql_expr_test: exprs,
};

// Raised from the 6th to the 16th minute.
local condition(kind, rule) = test(
  '%s is raised and cleared' % rule.alert,
  [
    present,
    simulate,
    series('sip_filter_condition', '0x5 1x10 0x40', { name: kind, severity: rule.labels.severity }),
    // The others must not set it off.
    series('sip_filter_condition', '1x60', { name: 'something-else', severity: 'critical' }),
  ],
  [
    at(rule.alert, '5m', []),
    at(rule.alert, '6m', []),
    at(rule.alert, '8m', [firing(rule.alert)]),
    // Two subjects or one: it is one alert, and it goes on for a while after the end.
    at(rule.alert, '19m', [firing(rule.alert)]),
    at(rule.alert, '25m', []),
  ],
);

local flicker = test(
  'what flickers is no alarm',
  [present, simulate, series('sip_filter_condition', '0x5 1 0x5 1 0x20', { name: 'detached', severity: 'critical' })],
  [at('SipFilterDetached', '%dm' % minute, []) for minute in [6, 7, 8, 12, 13, 14]],
);

// From the 6th to the 10th minute a counter rises.
local counted(name, metric, labels, result, waiting=[]) = test(
  '%s is raised and cleared' % name,
  [present, simulate, series(metric, '0x5 10+10x4 50x60', labels)] + waiting,
  [
    at(name, '5m', []),
    at(name, '9m', [firing(name, here + result)]),
    at(name, '40m', []),
  ],
);

local file = { file: '/var/lib/prometheus/node-exporter/sip_filter.prom', instance: 'edge1:9100', job: 'node' };
local exporter = { instance: 'edge1:9100', job: 'node' };

local heartbeat = [
  test(
    'SipFilterDown: the endpoint does not answer',
    [series('up', '1x5 0x10 1x30'), series('sip_filter_build_info', '1x5 _x10 1x30', { version: '1' })],
    [
      at('SipFilterDown', '5m', []),
      at('SipFilterDown', '8m', [firing('SipFilterDown', mode='unknown')]),
      at('SipFilterDown', '30m', []),
    ],
  ),
  test(
    'SipFilterDown: a host that was never seen',
    [series('up', '0x10')],
    [at('SipFilterDown', '2m', [firing('SipFilterDown', mode='unknown')])],
  ),
  test(
    'SipFilterDown: the file is old',
    [
      // Written each minute, then not from the 5th to the 15th, then again.
      { series: labelled('node_textfile_mtime_seconds', file), values: '0+60x5 300x9 900+60x30' },
      { series: labelled('sip_filter_build_info', exporter { version: '1' }), values: '1x80' },
    ],
    [
      at('SipFilterDown', '7m', []),
      at('SipFilterDown', '12m', [firing('SipFilterDown', exporter, 'unknown')]),
      at('SipFilterDown', '30m', []),
    ],
  ),
  test(
    'SipFilterDown: the file was removed by a clean stop; an upgrade is no outage',
    [
      { series: labelled('sip_filter_build_info', exporter { version: '1' }), values: '1x5 _x100' },
      { series: labelled('sip_filter_build_info', exporter { version: '2' }), values: '_x6 1x10 _x10 1x80' },
    ],
    [
      at('SipFilterDown', '14m', []),
      at('SipFilterDown', '23m', [firing('SipFilterDown', exporter, 'unknown')]),
      at('SipFilterDown', '45m', []),
    ],
  ),
  test(
    'SipFilterAbsent: the scrape configuration has lost it',
    [series('sip_filter_build_info', '_x10 1x30', { version: '1' })],
    [
      at('SipFilterAbsent', '5m', [firing('SipFilterAbsent', {})]),
      at('SipFilterAbsent', '30m', []),
    ],
  ),
  test(
    'SipFilterTextfileUnread: only where a filter is, or was',
    [
      { series: labelled('node_textfile_scrape_error', exporter), values: '0x5 1x10 0x30' },
      { series: labelled('node_textfile_scrape_error', { instance: 'mail:9100', job: 'node' }), values: '1x45' },
      { series: labelled('sip_filter_build_info', exporter { version: '1' }), values: '1x5 _x10 1x30' },
    ],
    [
      at('SipFilterTextfileUnread', '5m', []),
      at('SipFilterTextfileUnread', '8m', [firing('SipFilterTextfileUnread', exporter, 'unknown')]),
      at('SipFilterTextfileUnread', '30m', []),
    ],
  ),
];

local receiver = { receiver: 'webhook' };
local counts = [
  counted('SipFilterEventsLost', 'sip_filter_events_lost_total', { interface: 'eth0' }, {}),
  counted('SipFilterTrustRefused', 'sip_filter_trust_refused_total', {}, {}),
  counted('SipFilterAlarmDeliveriesFailing', 'sip_filter_alarm_deliveries_total', receiver { result: 'refused' }, receiver),
  counted(
    'SipFilterAlarmDeliveriesFailing',
    'sip_filter_alarm_deliveries_total',
    receiver { result: 'failed' },
    receiver,
    [series('sip_filter_alarms_waiting', '0x5 1x20 0x60', receiver)]
  ),
  test(
    'a delivery that worked at the second attempt is no alarm',
    [
      present,
      series('sip_filter_alarm_deliveries_total', '0x5 1x60', receiver { result: 'failed' }),
      series('sip_filter_alarms_waiting', '0x60', receiver),
    ],
    [at('SipFilterAlarmDeliveriesFailing', '%dm' % minute, []) for minute in [6, 8, 10]],
  ),
  test(
    'SipFilterConfigRejected also by the result of the reload',
    [present, simulate, series('sip_filter_config_last_reload_successful', '1x5 0x10 1x30')],
    [
      at('SipFilterConfigRejected', '5m', []),
      at('SipFilterConfigRejected', '8m', [firing('SipFilterConfigRejected')]),
      at('SipFilterConfigRejected', '30m', []),
    ],
  ),
];

local packets(name, rate, labels) = series(name, '0+%dx20' % (rate * 60), { interface: 'eth0', ip_type: 'ipv4' } + labels);
local recorded = test(
  'what is recorded adds up',
  [
    packets('sip_filter_processed_packets_total', 10, {}),
    packets('sip_filter_processed_packets_total', 5, { interface: 'eth1' }),
    packets('sip_filter_dropped_packets_total', 2, { reason: 'drop-ban-address' }),
    packets('sip_filter_dropped_packets_total', 3, { reason: 'drop-ban-address', interface: 'eth1' }),
    packets('sip_filter_dropped_packets_total', 1, { reason: 'drop-limit-other' }),
    packets('sip_filter_would_drop_packets_total', 4, { reason: 'drop-limit-other' }),
    series('sip_filter_bans', '7x20', { origin: 'manual', scope: 'sip', ip_type: 'ipv4' }),
    series('sip_filter_bans', '1x20', { origin: 'detector', scope: 'sip', ip_type: 'ipv6' }),
    series('sip_filter_bpf_map_entries', '25x20', { interface: 'eth0', map: 'ban4' }),
    series('sip_filter_bpf_map_max_entries', '100x20', { interface: 'eth0', map: 'ban4' }),
  ],
  [],
  [
    { expr: expected[0], eval_time: '15m', exp_samples: [{ labels: labelled(expected[0], here + sample[0]), value: sample[1] } for sample in expected[1]] }
    for expected in [
      ['instance:sip_filter_processed_packets:rate5m', [[{}, 15]]],
      ['instance:sip_filter_dropped_packets:rate5m', [[{}, 6]]],
      ['instance:sip_filter_would_drop_packets:rate5m', [[{}, 4]]],
      ['instance_reason:sip_filter_dropped_packets:rate5m', [[{ reason: 'drop-ban-address' }, 5], [{ reason: 'drop-limit-other' }, 1]]],
      ['instance:sip_filter_bans:sum', [[{}, 8]]],
      ['instance_map:sip_filter_bpf_map_fill:ratio', [[{ map: 'ban4' }, 0.25]]],
    ]
  ],
);

local conditions = [
  condition(std.split(rule.annotations.runbook_url, '#')[1], rule)
  for group in mixin.prometheusAlerts.groups
  if group.name == 'sip-filter-conditions'
  for rule in group.rules
];

// An alert that no test raises must not go unnoticed.
local tests = conditions + [flicker] + heartbeat + counts + [recorded];
local raised = std.set([check.alertname for test in tests for check in test.alert_rule_test if check.exp_alerts != []]);
assert raised == std.set(std.objectFields(alerts)) : 'alerts without a test: %s' % std.toString(std.setDiff(std.set(std.objectFields(alerts)), raised));

{
  rule_files: ['sip-filter-alerts.yml', 'sip-filter-rules.yml'],
  evaluation_interval: '1m',
  tests: tests,
}
