// A Grafana dashboard, as plain JSON: no library of Grafana's is needed to render it.
{
  local config = $._config,
  local datasource = { type: 'prometheus', uid: '${datasource}' },

  // Series of the instances chosen above, and of the interfaces, where the metric has that label.
  local matchers(list) = '{%s}' % std.join(', ', std.filter(function(m) m != '', [config.selector] + list)),
  local host(name, extra=[]) = name + matchers(['instance=~"$instance"'] + extra),
  local wire(name, extra=[]) = host(name, ['interface=~"$interface"'] + extra),
  local rate(series) = 'rate(%s[$__rate_interval])' % series,
  local increase(series) = 'increase(%s[$__rate_interval])' % series,
  local sum(by, expr) = if by == '' then 'sum(%s)' % expr else 'sum by (%s) (%s)' % [by, expr],

  local target(expr, legend) = { expr: expr, legendFormat: legend, datasource: datasource, editorMode: 'code', range: true },

  local panel(type, title, description, targets, unit) = {
    type: type,
    title: title,
    description: description,
    datasource: datasource,
    targets: [targets[i] { refId: std.char(65 + i) } for i in std.range(0, std.length(targets) - 1)],
    fieldConfig: { defaults: { unit: unit, min: 0, custom: {} }, overrides: [] },
  },

  // Lines over time; `stack` where the sum means something.
  local lines(title, description, targets, unit='pps', stack=false) = panel('timeseries', title, description, targets, unit) {
    fieldConfig+: {
      defaults+: {
        custom: {
          lineWidth: 1,
          fillOpacity: if stack then 40 else 5,
          showPoints: 'never',
          stacking: { mode: if stack then 'normal' else 'none', group: 'A' },
        },
      },
    },
    options: {
      legend: { displayMode: 'table', placement: 'right', calcs: ['lastNotNull', 'max'], sortBy: 'Max', sortDesc: true },
      tooltip: { mode: 'multi', sort: 'desc' },
    },
    w:: 12,
    h:: 8,
  },

  local steps(list) = { mode: 'absolute', steps: [{ color: step[0], value: step[1] } for step in list] },

  local stat(title, description, targets, thresholds, unit='short', mappings=[], text=false) = panel('stat', title, description, targets, unit) {
    fieldConfig+: { defaults+: { thresholds: steps(thresholds), mappings: mappings } },
    options: {
      colorMode: 'background',
      graphMode: 'none',
      textMode: if text then 'name' else 'auto',
      reduceOptions: { calcs: ['lastNotNull'], fields: '', values: false },
    },
    w:: 4,
    h:: 4,
  },

  local neutral = [['blue', null]],
  local words(zero, one) = [{ type: 'value', options: { '0': { text: zero }, '1': { text: one } } }],

  local sections = [
    ['Now', [
      stat(
        'Silent filters',
        'Filters that were there within the last hour and tell nothing now.',
        [target('count(max by (instance) (max_over_time(%s[1h])) unless on (instance) %s) or vector(0)' % [host('sip_filter_build_info'), host('sip_filter_build_info')], 'silent')],
        [['green', null], ['red', 1]],
      ),
      stat(
        'Wrong now',
        'Conditions that are raised, see the row below; `sip-filter health` has the text of each.',
        [target('sum(%s)' % host('sip_filter_condition'), 'conditions')],
        [['green', null], ['orange', 1]],
      ),
      stat(
        'Mode',
        'Simulate: the filter decides and counts, and drops nothing. One host that simulates is enough to show it here.',
        [target('max(%s)' % host('sip_filter_simulate'), 'mode')],
        [['green', null], ['orange', 1]],
        mappings=words('enforce', 'simulate'),
      ),
      stat(
        'Dropped',
        'Packets dropped a second, all reasons.',
        [target(sum('', rate(wire('sip_filter_dropped_packets_total'))), 'dropped')],
        neutral,
        unit='pps',
      ),
      stat(
        'Bans in force',
        'Addresses and networks on the list.',
        [target(sum('', host('sip_filter_bans')) + ' or vector(0)', 'bans')],
        neutral,
      ),
      stat(
        'Version',
        'Versions that run.',
        [target('count by (version) (%s)' % host('sip_filter_build_info'), '{{version}}')],
        neutral,
        text=true,
      ),
    ]],
    ['Traffic', [
      lines(
        'Packets by outcome',
        'Everything received on the interfaces: handed to the network stack, dropped, or passed only because the filter simulates. The three add up to all packets, exactly.',
        [
          target(sum('', rate(wire('sip_filter_passed_packets_total'))), 'passed'),
          target(sum('', rate(wire('sip_filter_dropped_packets_total'))), 'dropped'),
          target(sum('', rate(wire('sip_filter_would_drop_packets_total'))), 'would drop'),
        ],
        stack=true,
      ),
      lines(
        'Bits by outcome',
        'The same in bits: what the line carries, and what the host is spared.',
        [
          target('8 * ' + sum('', rate(wire('sip_filter_passed_bytes_total'))), 'passed'),
          target('8 * ' + sum('', rate(wire('sip_filter_dropped_bytes_total'))), 'dropped'),
          target('8 * ' + sum('', rate(wire('sip_filter_would_drop_bytes_total'))), 'would drop'),
        ],
        unit='bps',
        stack=true,
      ),
      lines(
        'SIP requests by method',
        'Requests to protected ports, admitted or over their limit; those that a ban stopped are not looked into.',
        [target(sum('method', rate(wire('sip_filter_sip_requests_total'))), '{{method}}')],
      ),
      lines(
        'Other payloads by class',
        'What else arrives at protected ports: responses, keep-alives, and garbage, which is no SIP at all.',
        [target(sum('class', rate(wire('sip_filter_other_payloads_total'))), '{{class}}')],
      ),
    ]],
    ['Verdicts', [
      lines(
        'Dropped by reason',
        'drop-ban-… is of sources on the list, drop-limit-… of sources that send more than their limit, drop-unknown-budget of strangers who together send more than theirs.',
        [target(sum('reason', rate(wire('sip_filter_dropped_packets_total'))), '{{reason}}')],
        stack=true,
      ),
      lines(
        'Would drop by reason',
        'What would be dropped if the filter enforced. Customers must not show here before you switch to enforce.',
        [target(sum('reason', rate(wire('sip_filter_would_drop_packets_total'))), '{{reason}}')],
        stack=true,
      ),
      lines(
        'Passed by reason',
        'Why packets passed. pass-map-error must be zero; pass-allowed-banned is an allow-listed source that is also on the list.',
        [target(sum('reason', rate(wire('sip_filter_passed_packets_total'))), '{{reason}}')],
      ),
      lines(
        'Share dropped',
        'Dropped packets as a share of all.',
        [target(
          '%s / (%s > 0)' % [
            sum('instance', rate(wire('sip_filter_dropped_packets_total'))),
            sum('instance', rate(wire('sip_filter_processed_packets_total'))),
          ],
          '{{instance}}'
        )],
        unit='percentunit',
      ),
    ]],
    ['Bans', [
      lines(
        'In force by origin',
        'Bans by whom they come from: by hand, from a list, or from a rule.',
        [target(sum('origin', host('sip_filter_bans')), '{{origin}}')],
        unit='short',
        stack=true,
      ),
      lines(
        'Added by origin and rule',
        'New bans within the interval.',
        [target(sum('origin, rule', increase(host('sip_filter_bans_added_total'))), '{{origin}} {{rule}}')],
        unit='short',
      ),
      lines(
        'Removed by cause',
        'Bans that expired, were lifted by somebody, or were replaced by one of another origin.',
        [target(sum('cause', increase(host('sip_filter_bans_removed_total'))), '{{cause}}')],
        unit='short',
      ),
      lines(
        'Decided by rule, not enforced',
        'Bans that shadow rules decided, and all that were decided in simulate mode.',
        [target(sum('rule', increase(host('sip_filter_would_ban_total'))), '{{rule}}')],
        unit='short',
      ),
    ]],
    ['Tables and detection', [
      lines(
        'Tables: how full',
        'A full table refuses what is new; map-nearly-full comes at `conditions.table_full_percent`. The setting to raise is the one of that name in [tables].',
        [target('max by (map) (%s / %s)' % [wire('sip_filter_bpf_map_entries'), wire('sip_filter_bpf_map_max_entries')], '{{map}}')],
        unit='percentunit',
      ),
      lines(
        'Events lost and suppressed',
        'Suppressed events are by design: their packets count in later events. Lost ones found the ring buffer full: detection did not see them.',
        [
          target(sum('', rate(wire('sip_filter_events_lost_total'))), 'lost'),
          target(sum('', rate(wire('sip_filter_events_suppressed_total'))), 'suppressed'),
          target(sum('', rate(host('sip_filter_detector_observations_total'))), 'seen by the rules'),
        ],
        unit='cps',
      ),
      lines(
        'Decisions by rule',
        'Offences that the rules found, by rule and whether the rule only reports (shadow).',
        [target(sum('rule, mode', increase(host('sip_filter_detections_total'))), '{{rule}} {{mode}}')],
        unit='short',
      ),
      lines(
        'Sources in the rules',
        'Sources being counted (`detect.max_sources` at most), and those whose earlier offences are remembered.',
        [
          target(sum('', host('sip_filter_detector_sources')), 'counted'),
          target(sum('', host('sip_filter_detector_offenders')), 'offenders'),
          target(sum('', rate(host('sip_filter_detector_sources_evicted_total'))), 'forgotten a second'),
        ],
        unit='short',
      ),
    ]],
    ['Trust and proof', [
      lines(
        'Trusted and proven sources',
        'Trusted: a registration is in force. Proven: has shown that the address is its own. A customer who calls should be both.',
        [
          target(sum('', host('sip_filter_trusted_sources')), 'trusted'),
          target(sum('', host('sip_filter_trusted_endpoints')), 'endpoints of trusted'),
          target(sum('', host('sip_filter_proven_sources')), 'proven'),
        ],
        unit='short',
      ),
      lines(
        'Trust refused',
        'Trusted sources and endpoints that the kernel had no room for; they have the limits of strangers. Must be zero: raise `tables.trust` or `tables.endpoints`.',
        [target(sum('instance', increase(host('sip_filter_trust_refused_total'))), '{{instance}}')],
        unit='short',
      ),
    ]],
    ['Conditions and alarms', [
      lines(
        'Wrong now',
        'Conditions and the number of interfaces or tables of which each is true. docs/alarms.md says what each means.',
        [target(sum('name', host('sip_filter_condition')), '{{name}}')],
        unit='short',
        stack=true,
      ),
      lines(
        'Conditions raised',
        'Times a condition became true within the interval, also those that came and went between two scrapes.',
        [target(sum('name', increase(host('sip_filter_conditions_raised_total'))), '{{name}}')],
        unit='short',
      ),
      lines(
        'Alarms delivered',
        'Alarms that the daemon told its own receivers ([alarms] in its configuration), by result.',
        [target(sum('receiver, result', increase(host('sip_filter_alarm_deliveries_total'))), '{{receiver}} {{result}}')],
        unit='short',
      ),
      lines(
        'Alarms waiting',
        'Alarms that a receiver has not been told yet.',
        [target(sum('receiver', host('sip_filter_alarms_waiting')), '{{receiver}}')],
        unit='short',
      ),
    ]],
    ['Interfaces', [
      lines(
        'Packets by interface',
        'Everything received.',
        [target(sum('instance, interface', rate(wire('sip_filter_processed_packets_total'))), '{{instance}} {{interface}}')],
      ),
      lines(
        'Dropped by interface',
        'Everything dropped.',
        [target(sum('instance, interface', rate(wire('sip_filter_dropped_packets_total'))), '{{instance}} {{interface}}')],
      ),
      lines(
        'Attached',
        '1 if the program is attached, by mode; generic mode costs more for each packet.',
        [target('max by (interface, mode) (%s)' % wire('sip_filter_xdp_attached'), '{{interface}} {{mode}}')],
        unit='short',
      ),
      lines(
        'Answers seen',
        '1 if responses that leave the interface are seen, by way. If all are 0, detection works on requests alone.',
        [target('max by (interface, mode) (%s)' % wire('sip_filter_egress_attached'), '{{interface}} {{mode}}')],
        unit='short',
      ),
    ]],
  ],

  local row(title) = { type: 'row', title: title, collapsed: false, panels: [], w:: 24, h:: 1 },

  // Left to right, and down when a line of 24 columns is full.
  local place(state, panel) =
    local fits = state.x + panel.w <= 24;
    local x = if fits then state.x else 0;
    local y = if fits then state.y else state.y + state.height;
    {
      x: x + panel.w,
      y: y,
      height: if fits then std.max(state.height, panel.h) else panel.h,
      panels: state.panels + [panel { id: std.length(state.panels) + 1, gridPos: { x: x, y: y, w: panel.w, h: panel.h } }],
    },
  local flat = std.flattenArrays([[row(section[0])] + section[1] for section in sections]),
  local placed = std.foldl(place, flat, { x: 0, y: 0, height: 0, panels: [] }).panels,

  local variable(name, label, metric, depends) = {
    type: 'query',
    name: name,
    label: label,
    datasource: datasource,
    definition: self.query.query,
    query: { query: 'label_values(%s, %s)' % [metric + matchers(depends), name], refId: name },
    refresh: 2,
    sort: 1,
    multi: true,
    includeAll: true,
    allValue: '.*',
    current: { selected: true, text: ['All'], value: ['$__all'] },
  },

  grafanaDashboards+:: {
    'sip-filter.json': {
      uid: config.dashboardUid,
      title: 'sip-filter',
      description: 'What arrives at protected SIP servers, what is dropped and why, who is banned, and what is wrong.',
      tags: ['sip', 'sip-filter'],
      schemaVersion: 37,
      editable: true,
      graphTooltip: 1,
      refresh: config.dashboardRefresh,
      time: { from: 'now-3h', to: 'now' },
      templating: {
        list: [
          { type: 'datasource', name: 'datasource', label: 'Data source', query: 'prometheus', current: {} },
          variable('instance', 'Host', 'sip_filter_build_info', []),
          variable('interface', 'Interface', 'sip_filter_xdp_attached', ['instance=~"$instance"']),
        ],
      },
      annotations: {
        list: [{
          name: 'Conditions',
          enable: true,
          datasource: datasource,
          expr: 'ALERTS' + matchers(['instance=~"$instance"', 'alertname=~"SipFilter.*"', 'alertstate="firing"']),
          titleFormat: '{{alertname}}',
          iconColor: 'orange',
        }],
      },
      panels: placed,
    },
  },
}
