# Builds, runs and tests ngx_pgq. `make help` lists the targets.
#
# Missing packages are installed first (as root or by sudo; for a plain user they are only listed). Builds go to build/,
# servers and their data to run/; nothing of ngx_pgq is installed into the system. Settings are variables, given as
# `make run PORT=9000` or in the environment; a database is named by DB_HOST… or by libpq's own PGHOST…, PGSERVICE.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
.NOTPARALLEL:

# The URL of the running nginx, unless PORT or LISTEN is given.
RUNNING := $(if $(PORT)$(LISTEN),,$(shell cat run/nginx/url 2> /dev/null))

PORT   ?= 8000
MAX    ?= 1000
N      ?= 1
DEBIAN ?= 12 13
SYSTEMS ?= 12 13 sid
SUITES ?= unit arm64 sql extension module whole deb cross
SECONDS = $(if $(filter soak,$(MAKECMDGOALS)),3600,120)
LISTEN ?= 127.0.0.1
export PORT LISTEN

BUILD     = $(MAKE) -f provision/build.mk $(if $(findstring -j,$(MAKEFLAGS)),,-j$(shell nproc))
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
URL       = $(or $(RUNNING),http://$(LISTEN):$(PORT))
DATABASE := provision/dev/with-database

$(if $(word 2,$(CURDIR)),$(error the path of this directory has a space in it: $(CURDIR)))


##@ Start here

.PHONY: run check
run: packages build  ## install missing packages, build, start PostgreSQL and nginx, post and show three messages; other ports: make run PORT=9000
	@provision/dev/run start

check: packages-check build check-docs check-unit check-sql check-isolation check-extension check-faults check-module check-whole  ## build, and run the suites docs, unit, sql, isolation, extension, faults, module and whole
	@echo "make check: all passed"


##@ Building

.PHONY: packages packages-check build deb clean
packages:
	@provision/install-packages build

packages-check:
	@provision/install-packages check

build: packages  ## build the nginx module, the extension, a private PostgreSQL installation and the load client
	@$(BUILD)

deb:  ## build the Debian packages of this Debian, in build/deb/
	@provision/install-packages deb
	@provision/package/deb

clean: stop cluster-stop  ## stop all servers; remove build/ and run/ with the data, and the containers of `make cluster`
	@provision/dev/clean


##@ Running

.PHONY: run-stats stop status reload logs psql
run-stats:  ## start Prometheus beside `make run`, with alerts and a console; another port: make run-stats STATS=9999
	@provision/install-packages stats
	@provision/dev/stats start

stop:  ## stop what `make run` and `make run-stats` started
	@provision/dev/stats stop
	@provision/dev/run stop

status:  ## show which servers run
	@provision/dev/run status

reload:  ## reload the configuration of nginx and PostgreSQL
	@provision/dev/run reload

logs:  ## show the last lines of the logs of nginx and PostgreSQL
	@provision/dev/run logs

psql:  ## psql in the database of `make run`
	@$(DATABASE) psql


##@ A cluster of five hosts

.PHONY: cluster cluster-stop cluster-status cluster-switchover cluster-failover cluster-reinit cluster-psql cluster-logs cluster-upgrade cluster-backup cluster-restore
cluster:  ## make three database and two web hosts, as LXC containers of this machine (as root)
	@provision/install-packages cluster
	@provision/cluster/cluster start

cluster-stop:  ## remove the containers and their data
	@provision/cluster/cluster stop

cluster-status:  ## show the leader, the state of each host, waiting messages
	@provision/cluster/cluster status

cluster-switchover:  ## make another member the primary
	@provision/cluster/cluster switchover

cluster-failover:  ## make HOST the primary, if it has every acknowledged message: make cluster-failover HOST=pg2
	@provision/cluster/cluster failover $(HOST)

cluster-reinit:  ## replace HOST's data by a copy of the primary's, if that is complete: make cluster-reinit HOST=pg2
	@provision/cluster/cluster reinit $(HOST)

cluster-psql:  ## psql at the primary
	@provision/cluster/cluster psql

cluster-logs:  ## show the last log lines of a host: make cluster-logs HOST=pg1
	@provision/cluster/cluster logs $(HOST)

cluster-upgrade:  ## upgrade a running cluster, one host after the other
	@provision/cluster/cluster upgrade

cluster-backup:  ## make a backup now
	@provision/cluster/cluster backup

cluster-restore:  ## restore the newest archived state, or an earlier one: make cluster-restore TIME="2026-11-22 14:00:00Z"
	@provision/cluster/cluster restore $(if $(TIME),"$(TIME)")


##@ Messages

.PHONY: post-msgs curl-msgs cat-posts cat-queue count-posts count-queue movers load-test bench bench-mover bench-faults bench-readers bench-compare bench-cluster
post-msgs:  ## post N messages by curl
	@for i in $$(seq $(N)); do curl -sS --json "{\"message\": $$i}" $(URL)/post; echo; done

curl-msgs:  ## GET the newest posts
	@curl -sS $(URL)/get; echo

cat-posts:  ## show the newest posts, from the table
	@$(DATABASE) psql -X -P pager=off -c 'select id, at, message_id, topic, data from posts order by id desc limit 20'

cat-queue:  ## show messages that are not yet moved
	@$(DATABASE) psql -X -P pager=off -c 'select at, message_id, slot, topic, data from ngx_pgq.queue limit 20'

count-posts:  ## count the posts
	@$(DATABASE) psql -XAtc 'select count(*) from posts'

count-queue:  ## count the messages that are not yet moved
	@$(DATABASE) psql -XAtc 'select count(*) from ngx_pgq.queue'

movers:  ## set the number of movers, and show them: make movers N=4
	@$(DATABASE) provision/dev/movers $(N)

load-test: build  ## post MAX messages and check that each arrived: make load-test MAX=100000
	@$(DATABASE) provision/dev/load-test $(URL)/post $(MAX)

bench: packages-check build  ## measure throughput and latency, as ratios (not a test)
	@bench/run

bench-mover: packages-check build  ## measure the mover: held snapshot, backlog, growth (half an hour; not a test)
	@bench/mover

bench-faults: packages-check build  ## measure the effect of restarts, reloads, slow clients and outages (not a test)
	@bench/faults

bench-readers: packages-check build  ## measure GET and 10,000 readers, and those of nchan and push-stream (half an hour; not a test)
	@provision/install-packages bench-readers
	@bench/readers

bench-compare: packages-check build  ## compare with Redis, PgQ, RabbitMQ, NATS on the same work; writes bench/RESULTS.md (hours; not a test)
	@provision/install-packages bench-compare
	@$(MAKE) --no-print-directory build
	@bench/compare

bench-cluster: packages-check build  ## measure a cluster of five containers and a single node (as root; not a test)
	@provision/install-packages cluster
	@bench/cluster


##@ Tests, one kind at a time

.PHONY: check-others check-page check-unit check-sql check-isolation check-extension check-faults check-module check-whole check-ha check-docs check-reload check-sanitize check-valgrind check-bare check-deb matrix fuzz soak analyze
check-docs: packages-check  ## code and documents agree; form of the sources; direction of calls; promises have tests
	@test/run docs

check-unit: packages-check build  ## C programs for files without dependencies
	@test/run unit

check-sql: packages-check build  ## schema, contract, grants and mover, with pgTAP
	@test/run sql

check-isolation: packages-check build  ## several sessions and the movers, in fixed orders
	@test/run isolation

check-extension: packages-check build  ## the extension on private servers: starts, stops, crashes
	@test/run extension

check-faults: packages-check  ## each step of the extension fails once, in a separate build
	@$(BUILD) BUILD=build/faults CFLAGS="-O1 -g -DNGX_PGQ_FAULTS" private
	@PGQ_BUILD=build/faults test/run faults

check-module: packages-check build  ## the nginx module
	@test/run module

check-whole: packages-check build  ## a message from POST to GET; configurations; commands of the documents
	@test/run whole

check-others: packages-check build  ## let HAProxy, nftables, Patroni, Prometheus and Ruby check the files written for them
	@provision/install-packages others
	@PGQ_OTHERS=1 test/run docs module/140_metrics.t whole/050_cluster_files.t whole/052_vagrant.t whole/070_monitoring.t

check-page: packages-check build  ## the live page, in headless Chromium
	@provision/install-packages page
	@test/page/get-axe
	@test/run page

check-ha: packages-check build  ## faults of a cluster's hosts under load, on five containers (as root)
	@provision/install-packages stats
	@rm -f build/ha.results; trap 'cat build/ha.results 2> /dev/null || true' EXIT; \
	    PGQ_JOBS=1 PGQ_RESULTS=$(CURDIR)/build/ha.results provision/cluster/with-cluster test/run ha

soak: packages-check build  ## faults of a cluster's hosts in a random order, for SECONDS=3600 (as root)
	@PGQ_SECONDS=$(SECONDS) provision/cluster/with-cluster test/run soak -v

check-reload: packages-check build  ## 200 reloads of nginx under load, with readers: descriptors, memory, connections
	@PGQ_RELOADS=200 test/run test/module/162_descriptors_and_memory.t -v

check-sanitize: packages-check build  ## the tests with module and extension under ASan and UBSan
	@$(BUILD) BUILD=build/sanitize SANITIZE="$(SANITIZE)" CFLAGS="-O1 -g"
	@PGQ_BUILD=build/sanitize PGQ_SANITIZE=1 test/run unit sql isolation extension module whole

check-valgrind: packages-check build  ## the module's tests, and the extension in a whole server, under valgrind
	@provision/install-packages valgrind
	@PGQ_VALGRIND=1 test/run module
	@PGQ_SLOW=10 test/run valgrind

check-bare:  ## make run and make check on new systems: make check-bare DEBIAN="12 13 testing" (as root)
	@provision/dev/matrix "$(DEBIAN)" bare

matrix:  ## suites on new systems; writes docs/matrix.md: make matrix SYSTEMS="12 13 sid" SUITES="unit sql" (as root)
	@provision/dev/matrix "$(SYSTEMS)" "$(SUITES)"

check-deb:  ## build the packages twice, lintian, and their tests, on new systems: make check-deb DEBIAN="12 13" (as root)
	@provision/install-packages matrix
	@provision/package/check-deb $(DEBIAN)

fuzz: packages-check build  ## fuzz the parsers and the servers, for SECONDS=120
	@provision/install-packages fuzz
	@$(BUILD) BUILD=build/sanitize SANITIZE="$(SANITIZE)" CFLAGS="-O1 -g"
	@test/fuzz/run $(SECONDS)

analyze: packages-check  ## static analysis: gcc -fanalyzer, clang-tidy, cppcheck
	@provision/install-packages analyze
	@test/analyze/run


##@ Help

.PHONY: help
help:  ## show this list
	@awk -f provision/dev/help.awk $(MAKEFILE_LIST)
