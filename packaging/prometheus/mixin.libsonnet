// Alerts, recording rules and a dashboard for sip-filter, in the form of a Prometheus mixin.
//
// The rendered files beside it (`cargo xtask mixin`) have the settings of config.libsonnet. To have others:
//
//   local mixin = (import 'mixin.libsonnet') + { _config+:: { selector: 'job="edge"' } };
//   mixin.prometheusAlerts
(import 'config.libsonnet') + (import 'alerts.libsonnet') + (import 'rules.libsonnet') + (import 'dashboard.libsonnet')
