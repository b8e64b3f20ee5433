# The rules of Grafana's dashboard-linter for a dashboard with Prometheus as its source, as far as they need no parser of
# PromQL: a line for each violation.
#
#   jq -r -f test/tools/dashboard-lint.jq monitoring/dashboard.json

def none: . == null or . == "";

# jq's copy of the units of Grafana that this project may need.
def units: ["short", "percentunit", "bytes", "s", "cps", "ops", "reqps"];

def template($name; $title):
    [.templating.list[] | select(.name == $name)][0] as $t
    | if $t == null then "no variable \($name)"
      else
        (if $t.label != $title then "variable \($name): its label is not \($title)" else empty end),
        (if $t.type != "query" then "variable \($name): it is no query" else empty end),
        (if $t.datasource.uid != "${datasource}" then "variable \($name): not of the data source variable" else empty end),
        (if $t.multi != true or $t.allValue != ".+" then "variable \($name): not for several values" else empty end),
        (if $t.refresh != 2 then "variable \($name): not reloaded with the time range" else empty end)
      end;

def target($panel):
    .expr as $expr
    | "\($panel): \($expr)" as $at
    | (if $expr | none then "\($panel): no query" else empty end),
      ([$expr | match("\\b(pgq|node|patroni|etcd|haproxy)_[a-z0-9_]+(\\{[^}]*\\})?(\\[[^]]*\\])?"; "g")]
       | (if length == 0 then "\($at): no metric" else empty end),
         (.[] | .string as $selector
          | (if $selector | contains("job=~\"$job\"") | not then "\($at): no matcher of job" else empty end),
            (if $selector | contains("instance=~\"$instance\"") | not then "\($at): no matcher of instance" else empty end),
            (if ($selector | test("\\[")) and ($selector | endswith("[$__rate_interval]") | not)
             then "\($at): not $__rate_interval" else empty end),
            (if $selector | test("_(total|bucket|sum|count)\\{") then
                 $expr[:$expr | index($selector)] | select(test("(rate|irate|increase)\\($") | not) | "\($at): a counter without rate"
             else empty end)));

(if .editable != false then "editable" else empty end),
([.templating.list[] | select(.type == "datasource")]
 | if map([.name, .label, .query]) != [["datasource", "Data source", "prometheus"]] then "no data source variable" else empty end),
template("job"; "Job"),
template("instance"; "Instance"),
(.panels[] | (.title // "panel \(.id)") as $panel
 | (if (.title | none) or (.description | none) then "\($panel): no title or no description" else empty end),
   (if .datasource.uid != "${datasource}" then "\($panel): not of the data source variable" else empty end),
   (.fieldConfig.defaults.unit as $unit | if units | index([$unit]) | not then "\($panel): unit \($unit)" else empty end),
   (if .targets | length == 0 then "\($panel): no query" else empty end),
   (.targets[] | target($panel)))
