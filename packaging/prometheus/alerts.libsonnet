{
  local config = $._config,

  // `{a}` of several label matchers, the empty ones left out.
  local where(matchers) = '{%s}' % std.join(',', std.filter(function(m) m != '', matchers)),
  local series(name, matchers=[]) =
    local all = std.filter(function(m) m != '', [config.selector] + matchers);
    if std.length(all) == 0 then name else name + where(all),

  // "map-nearly-full" is "SipFilterMapNearlyFull", as in the alarms that the daemon sends itself.
  local alertName(kind) = 'SipFilter' + std.join('', [
    std.asciiUpper(word[0]) + word[1:]
    for word in std.split(kind, '-')
  ]),

  local simulates = |||
    {{ with printf "sip_filter_simulate{instance='%s'}" $labels.instance | query }}{{ if eq (. | first | value) 1.0 }}simulate{{ else }}enforce{{ end }}{{ else }}unknown{{ end }}
  |||,

  local alert(kind, severity, expr, summary, means, remedy, hold=config.holdUp) = {
    alert: alertName(kind),
    expr: expr,
    'for': hold,
    [if config.holdDown != null then 'keep_firing_for']: config.holdDown,
    labels: {
      severity: severity,
      service: 'sip-filter',
      host: '{{ reReplaceAll ":[0-9]+$" "" $labels.instance }}',
    },
    annotations: {
      summary: summary,
      description: '%s To do: %s.' % [means, remedy],
      mode: std.stripChars(simulates, '\n'),
      runbook_url: '%s#%s' % [config.runbookBase, kind],
    },
  },

  // What the daemon finds wrong. Severity and remedy are those of `Kind` in sip-filter/src/conditions/kind.rs.
  local condition(kind, severity, summary, means, remedy, also='') = alert(
    kind,
    severity,
    'max without (name, severity) (%s) > 0%s' % [series('sip_filter_condition', ['name="%s"' % kind]), also],
    summary,
    means,
    remedy,
  ),

  local counted(name, matchers=[]) = 'increase(%s[%s])' % [series(name, matchers), config.countWindow],

  local conditions = [
    condition(
      'detached',
      'critical',
      'sip-filter is not attached to an interface of {{ $labels.instance }}',
      'An interface that is there runs without the filter: whatever arrives on it reaches the SIP server.',
      '`sip-filter status` shows the state, `bpftool net` whose program is there; attaching is tried again by itself, unless the daemon has given up its capabilities: then restart it'
    ),
    condition(
      'interface-missing',
      'critical',
      'an interface that sip-filter should protect is missing on {{ $labels.instance }}',
      'An interface named in the configuration is not there, so nothing on it is filtered.',
      'bring the interface up, or take it out of `interfaces` and run `sip-filter config reload`; it is filtered as soon as it is there'
    ),
    condition(
      'generic-mode',
      'warning',
      'sip-filter runs outside the driver on {{ $labels.instance }}',
      'The driver cannot run XDP, so each packet costs the kernel more before it can be dropped, and a flood is felt sooner.',
      'use a driver with native XDP, or set `xdp_mode = "generic"` to accept it as it is'
    ),
    condition(
      'not-pinned',
      'critical',
      'sip-filter on {{ $labels.instance }} would end with its daemon',
      'The pins that keep the filter attached are gone: while the daemon runs, all is as always; when it ends, the interface is open.',
      'packets are still filtered; mount the BPF file system again (`mount -t bpf bpf /sys/fs/bpf`), and the pins are put back by themselves; until then do not stop the daemon'
    ),
    condition(
      'events-lost',
      'warning',
      'sip-filter on {{ $labels.instance }} loses events',
      'The kernel found the ring buffer full, so detection did not see everything and may ban late. Bans and limits in the kernel are not concerned.',
      'give the daemon more processor time, or lower `events.per_window` and run `sip-filter config reload`',
      ' or sum without (interface) (%s) > %d' % [counted('sip_filter_events_lost_total'), config.eventsLost]
    ),
    condition(
      'answers-unseen',
      'warning',
      'sip-filter does not see the answers of the server on {{ $labels.instance }}',
      'Detection works on requests alone: guessed passwords and tried accounts go unnoticed, and no source can prove its address.',
      'failed logins cannot be told from good ones; `sip-filter status` says why, and a restart tries again'
    ),
    condition(
      'map-nearly-full',
      'warning',
      'a table of sip-filter is nearly full on {{ $labels.instance }}',
      'When a table is full, further bans (or trusted sources) are refused; none that is there is ever thrown out.',
      'raise the setting and restart, or lift bans: `sip-filter list`, `sip-filter unban --origin import --yes`'
    ),
    condition(
      'flood-ongoing',
      'warning',
      'sip-filter on {{ $labels.instance }} is dropping a flood',
      'More than `conditions.flood_rate` packets a second are dropped, or were within the last minute. The server is protected; the line may still be full.',
      'it is being dropped; `sip-filter top` and `sip-filter events -f` show who sends it'
    ),
    condition(
      'mass-ban',
      'warning',
      'the rules of sip-filter on {{ $labels.instance }} have banned very many sources',
      'Either many attack at once, or a rule is wrong and customers are locked out.',
      'look at `sip-filter list --origin detector`; `sip-filter unban --origin detector --yes` lifts them, `sip-filter mode simulate` stops enforcing'
    ),
    condition(
      'simulate-too-long',
      'warning',
      'sip-filter on {{ $labels.instance }} has only simulated for long',
      'The filter decides and counts, and lets everything through: the server is not protected.',
      'nothing is dropped; `sip-filter status` shows what would be, `sip-filter mode enforce` enforces'
    ),
    condition(
      'banned-source-passes',
      'critical',
      'a banned source passes sip-filter on {{ $labels.instance }}',
      'The kernel lets a source pass that the list says is banned.',
      'compare `sip-filter check ADDRESS` with `sip-filter status`; restarting the daemon loads and fills the tables anew, without a gap'
    ),
    condition(
      'store-failing',
      'critical',
      'sip-filter on {{ $labels.instance }} cannot save its bans',
      'Bans are in force but would not survive a reboot.',
      'see the log and the free space of the state directory; writing is tried again by itself'
    ),
    condition(
      'drift',
      'warning',
      'kernel tables of sip-filter on {{ $labels.instance }} were not what its list says',
      'Somebody other than the daemon has changed a table, or there is a bug.',
      'it has been repaired; find out who else writes below `bpf.pin_root`, `bpftool map` shows the maps'
    ),
    condition(
      'distributed-auth',
      'warning',
      'an account behind sip-filter on {{ $labels.instance }} is attacked from many sources',
      'Many sources failed to log in to one account, each too seldom to be banned for it.',
      'change the password of the account; `sip-filter events` tells which and how many sources'
    ),
    condition(
      'config-rejected',
      'warning',
      'sip-filter on {{ $labels.instance }} cannot use its configuration file',
      'The last reload failed and an older configuration is in force; the next start would fail.',
      '`sip-filter config check` names line and key',
      also=' or ' + series('sip_filter_config_last_reload_successful') + ' == 0',
    ),
    condition(
      'alarms-undelivered',
      'warning',
      'sip-filter on {{ $labels.instance }} cannot deliver its alarms',
      'A receiver of `[alarms]` does not take them, three times in a row or for good.',
      'see the log for why, look at `[alarms]` in the configuration and at the receiver; delivery is tried again by itself'
    ),
    condition(
      'textfile-failing',
      'warning',
      'sip-filter on {{ $labels.instance }} cannot write its text file',
      'The file for node_exporter is as old as its last successful writing, so whoever sees this sees the endpoint.',
      "see that the directory of `metrics.textfile` is there and can be written by the daemon's user; writing is tried again by itself"
    ),
  ],

  // What only somebody outside can see: the daemon cannot tell that it is gone.
  local heartbeat = [
    alert(
      'down',
      'critical',
      |||
        max by (instance, job) (up{%(endpoint)s}) == 0
        or
        max by (instance, job) (time() - node_textfile_mtime_seconds{%(textfile)s}) > %(age)d
        or
        max by (instance, job) (max_over_time(%(info)s[%(missed)s])) unless on (instance, job) max by (instance, job) (%(info)s)
      ||| % {
        endpoint: config.endpointSelector,
        textfile: config.textfileSelector,
        age: config.textfileMaxAgeSeconds,
        info: series('sip_filter_build_info'),
        missed: config.missedFor,
      },
      'sip-filter on {{ $labels.instance }} is silent',
      'Its endpoint does not answer, its file is no longer written, or its numbers are gone. The kernel goes on with the bans and limits it has, unless the filter was detached; nothing new is detected.',
      'on the host, `systemctl status sip-filter` and `journalctl -u sip-filter` tell why, `sip-filter health` whether it answers; `systemctl restart sip-filter` starts it without a gap'
    ),
    alert(
      'absent',
      'critical',
      'absent(%s)' % series('sip_filter_build_info'),
      'Prometheus knows of no sip-filter at all',
      'No filter is scraped: all are down, or the scrape configuration has lost them.',
      'look at the targets of Prometheus; `sip-filter health` on a host tells whether the daemon there runs'
    ) + { labels+: { host:: '' }, annotations+: { mode:: '' } },
    alert(
      'textfile-unread',
      'warning',
      '(node_textfile_scrape_error > 0) and on (instance) max by (instance) (max_over_time(%s[%s]))' % [
        series('sip_filter_build_info'),
        config.missedFor,
      ],
      'node_exporter on {{ $labels.instance }} cannot read a text file',
      'Some file in the directory of its textfile collector is broken; the numbers of sip-filter may be missing or old.',
      'the log of node_exporter names the file; `curl http://127.0.0.1:9798/metrics` on the host shows what sip-filter has to tell'
    ),
  ],

  local counts = [
    alert(
      'alarm-deliveries-failing',
      'warning',
      |||
        sum without (result) (%(failed)s) > 0 and on (instance, job, receiver) %(waiting)s > 0
        or
        sum without (result) (%(refused)s) > 0
      ||| % {
        failed: counted('sip_filter_alarm_deliveries_total', ['result="failed"']),
        refused: counted('sip_filter_alarm_deliveries_total', ['result="refused"']),
        waiting: series('sip_filter_alarms_waiting'),
      },
      'alarms of sip-filter on {{ $labels.instance }} do not reach {{ $labels.receiver }}',
      'Alarms wait because a receiver does not answer, or were refused for good. What is wrong is known to the host alone.',
      '`sip-filter health` on the host tells what is wrong there, its log why the receiver did not take it; then look at `[alarms]` in the configuration'
    ),
    alert(
      'trust-refused',
      'warning',
      '%s > %d' % [counted('sip_filter_trust_refused_total'), config.trustRefused],
      'sip-filter on {{ $labels.instance }} has no room for what it trusts',
      'Customers with a registration in force, or some of their endpoints, have the limits of strangers, and share the budget of strangers in a flood.',
      'raise `tables.trust` or `tables.endpoints` and restart; `sip-filter config show` has their values'
    ),
  ],

  prometheusAlerts+:: {
    groups+: [
      { name: 'sip-filter-heartbeat', rules: heartbeat },
      { name: 'sip-filter-conditions', rules: conditions },
      { name: 'sip-filter-counts', rules: counts },
    ],
  },
}
