{
  _config+:: {
    // Which series of sip-filter are meant, such as 'job="sip-filter"'. Empty: all, by endpoint or by node_exporter.
    selector: '',
    // The scrape job of the daemon's own endpoint.
    endpointSelector: 'job="sip-filter"',
    // The file that the daemon writes for node_exporter.
    textfileSelector: 'file=~".*/sip_filter.prom"',

    // A file older than this is of a daemon that has died. Six times the longest sensible `metrics.textfile_interval`.
    textfileMaxAgeSeconds: 180,
    // How long a filter that is gone is missed; then it is taken to be gone for good.
    missedFor: '1d',

    // What a condition must last before anybody is told, and how long it must be gone. The daemon has its own patience
    // before it raises most of them. `holdDown` needs Prometheus 2.42; null leaves it out.
    holdUp: '1m',
    holdDown: '5m',
    // For what is counted, not raised: the window in which more than so many are too many.
    countWindow: '10m',
    eventsLost: 0,
    trustRefused: 0,

    // Prepended to the anchors of the pages for the on-call team.
    runbookBase: 'docs/alarms.md',

    dashboardUid: 'sip-filter',
    dashboardRefresh: '30s',
  },
}
