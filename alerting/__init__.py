"""alert-rules/severity.yml and slo.yml as data -> routes, rules, pages.

In: text of those files. Out: values, and the text of what is generated from them. Nothing in here talks to a server.
"""
