{
  local selector = if $._config.selector == '' then '' else '{%s}' % $._config.selector,
  local rate(name) = 'rate(%s%s[5m])' % [name, selector],
  local value(name) = name + selector,

  prometheusRules+:: {
    groups+: [
      {
        name: 'sip-filter-recorded',
        rules: [
          {
            record: 'instance:sip_filter_processed_packets:rate5m',
            expr: 'sum without (interface, ip_type) (%s)' % rate('sip_filter_processed_packets_total'),
          },
          {
            record: 'instance:sip_filter_dropped_packets:rate5m',
            expr: 'sum without (interface, ip_type, reason) (%s)' % rate('sip_filter_dropped_packets_total'),
          },
          {
            record: 'instance:sip_filter_would_drop_packets:rate5m',
            expr: 'sum without (interface, ip_type, reason) (%s)' % rate('sip_filter_would_drop_packets_total'),
          },
          {
            record: 'instance_reason:sip_filter_dropped_packets:rate5m',
            expr: 'sum without (interface, ip_type) (%s)' % rate('sip_filter_dropped_packets_total'),
          },
          {
            record: 'instance:sip_filter_bans:sum',
            expr: 'sum without (origin, scope, ip_type) (%s)' % value('sip_filter_bans'),
          },
          {
            record: 'instance_map:sip_filter_bpf_map_fill:ratio',
            expr: 'max without (interface) (%s / %s)' % [
              value('sip_filter_bpf_map_entries'),
              value('sip_filter_bpf_map_max_entries'),
            ],
          },
        ],
      },
    ],
  },
}
