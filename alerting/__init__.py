"""alert-rules/severity.yml and slo.yml as data -> routes, rules, pages."""
