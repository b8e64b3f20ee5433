# The one door to ngx_pgq: build it, run it, test it. `make help` lists the targets.
#
# The packages that are missing are installed first (as root or by sudo; a plain user is told which). What is built
# goes to build/, what runs lives in run/; nothing of ours is put into the system. Settings are variables, given as
# `make run PORT=9000` or in the environment; a database is named by DB_HOST… or by libpq's own PGHOST…, PGSERVICE.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
.NOTPARALLEL:

# What runs is found at the address it was started with, unless PORT or LISTEN is given again.
RUNNING := $(if $(PORT)$(LISTEN),,$(shell cat run/nginx/url 2> /dev/null))

PORT   ?= 8000
MAX    ?= 1000
N      ?= 1
DEBIAN ?= 12 13
SECONDS = $(if $(filter soak,$(MAKECMDGOALS)),3600,120)
LISTEN ?= 127.0.0.1
export PORT LISTEN
$(foreach name,MONITOR RATE NAMES ORIGINS VERIFY,$(if $($(name)),$(eval export $(name))))

BUILD     = $(MAKE) -f provision/build.mk $(if $(findstring -j,$(MAKEFLAGS)),,-j$(shell nproc))
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
URL       = $(or $(RUNNING),http://$(LISTEN):$(PORT))
DATABASE := provision/dev/with-database

$(if $(word 2,$(CURDIR)),$(error the path of this directory has a space in it: $(CURDIR)))


##@ Two commands

.PHONY: run check
run: packages build  ## install what is missing, build, start PostgreSQL and nginx, post three messages, show them
	@provision/dev/run start

check: packages-check build check-docs check-unit check-sql check-isolation check-extension check-faults check-module check-whole  ## build and run every test
	@echo "make check: all passed"


##@ Building

.PHONY: packages packages-check build clean
packages:
	@provision/install-packages build

packages-check:
	@provision/install-packages check

build: packages  ## build the nginx module, the extension, a private PostgreSQL installation and the load client
	@$(BUILD)

clean: stop cluster-stop  ## stop what runs; remove build/ and run/, with the data in it
	@provision/dev/clean


##@ Running

.PHONY: stop status reload logs psql
stop:  ## stop what `make run` started
	@provision/dev/run stop

status:  ## say what runs
	@provision/dev/run status

reload:  ## let nginx and PostgreSQL read their settings again
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

cluster-stop:  ## remove them, and all that was on them
	@provision/cluster/cluster stop

cluster-status:  ## who leads, how far the others are, what waits
	@provision/cluster/cluster status

cluster-switchover:  ## let another member become the primary
	@provision/cluster/cluster switchover

cluster-failover:  ## HOST becomes the primary, if it has all that was acknowledged: make cluster-failover HOST=pg2
	@provision/cluster/cluster failover $(HOST)

cluster-reinit:  ## replace HOST's data by a copy of the primary's, if that has all: make cluster-reinit HOST=pg2
	@provision/cluster/cluster reinit $(HOST)

cluster-psql:  ## psql at the primary
	@provision/cluster/cluster psql

cluster-logs:  ## the last lines of what runs on a host: make cluster-logs HOST=pg1
	@provision/cluster/cluster logs $(HOST)

cluster-upgrade:  ## bring what is new here to a cluster that serves, one host after the other
	@provision/cluster/cluster upgrade

cluster-backup:  ## back it up, now
	@provision/cluster/cluster backup

cluster-restore:  ## begin anew with the newest that was archived: make cluster-restore TIME="2026-11-22 14:00:00Z"
	@provision/cluster/cluster restore $(if $(TIME),"$(TIME)")


##@ Messages

.PHONY: post-msgs curl-msgs cat-posts cat-queue count-posts count-queue movers load-test bench bench-mover bench-faults bench-cluster
post-msgs:  ## post N messages by curl
	@for i in $$(seq $(N)); do curl -sS --json "{\"message\": $$i}" $(URL)/post; echo; done

curl-msgs:  ## GET the newest posts
	@curl -sS $(URL)/get; echo

cat-posts:  ## the newest posts, from the table
	@$(DATABASE) psql -X -P pager=off -c 'select id, at, message_id, data from posts order by id desc limit 20'

cat-queue:  ## the messages that are not moved yet
	@$(DATABASE) psql -X -P pager=off -c 'select at, message_id, slot, data from ngx_pgq.queue limit 20'

count-posts:  ## how many posts there are
	@$(DATABASE) psql -XAtc 'select count(*) from posts'

count-queue:  ## how many messages are not moved yet
	@$(DATABASE) psql -XAtc 'select count(*) from ngx_pgq.queue'

movers:  ## let N movers work at once, and show them: make movers N=4
	@$(DATABASE) provision/dev/movers $(N)

load-test: build  ## post MAX messages, and check that each of them arrived: make load-test MAX=100000
	@$(DATABASE) provision/dev/load-test $(URL)/post $(MAX)

bench: packages-check build  ## measure against the ceiling and print ratios (not a test)
	@bench/run

bench-mover: packages-check build  ## measure the mover under a held snapshot, a backlog, for long (half an hour; not a test)
	@bench/mover

bench-faults: packages-check build  ## measure what clients notice of restarts, reloads, slow clients and outages (not a test)
	@bench/faults

bench-cluster: packages-check build  ## measure a cluster of five containers beside a single node (as root; not a test)
	@provision/install-packages cluster
	@bench/cluster


##@ Tests, one kind at a time

.PHONY: check-others check-unit check-sql check-isolation check-extension check-faults check-module check-whole check-ha check-docs check-reload check-sanitize check-valgrind check-bare fuzz soak analyze
check-docs: packages-check  ## code and documents agree; the sources keep to the house style
	@test/run docs

check-unit: packages-check build  ## the C rooms that stand alone
	@test/run unit

check-sql: packages-check build  ## schema, contract, grants and mover, in pgTAP
	@test/run sql

check-isolation: packages-check build  ## several sessions and the movers, in fixed orders
	@test/run isolation

check-extension: packages-check build  ## the extension on private servers: starts, stops, crashes
	@test/run extension

check-faults: packages-check  ## each step of the extension made to fail, in a build of its own
	@$(BUILD) BUILD=build/faults CFLAGS="-O1 -g -DNGX_PGQ_FAULTS" private
	@PGQ_BUILD=build/faults test/run faults

check-module: packages-check build  ## the nginx module
	@test/run module

check-whole: packages-check build  ## a message's whole way
	@test/run whole

check-others: packages-check build  ## what HAProxy, nftables, Patroni, Prometheus and Vagrant's Ruby say of what we write for them
	@provision/install-packages others
	@PGQ_OTHERS=1 test/run docs module/140_metrics.t whole/050_cluster_files.t whole/052_vagrant.t

check-ha: packages-check build  ## faults of a cluster's hosts under load, on five LXC hosts made for it (as root)
	@rm -f build/ha.results; trap 'cat build/ha.results 2> /dev/null || true' EXIT; \
	    PGQ_JOBS=1 PGQ_RESULTS=$(CURDIR)/build/ha.results provision/cluster/with-cluster test/run ha

soak: packages-check build  ## faults of a cluster's hosts in a random order, SECONDS=3600 long (as root)
	@PGQ_SECONDS=$(SECONDS) provision/cluster/with-cluster test/run soak -v

check-reload: packages-check build  ## 200 reloads of nginx under load: what each leaves behind
	@PGQ_RELOADS=200 test/run test/module/162_reload_leaks.t -v

check-sanitize: packages-check build  ## the tests with module and extension under ASan and UBSan
	@$(BUILD) BUILD=build/sanitize SANITIZE="$(SANITIZE)" CFLAGS="-O1 -g"
	@PGQ_BUILD=build/sanitize PGQ_SANITIZE=1 test/run unit sql isolation extension module whole

check-valgrind: packages-check build  ## the module's tests, and the extension in a whole server, under valgrind
	@provision/install-packages valgrind
	@PGQ_VALGRIND=1 test/run module
	@PGQ_SLOW=10 test/run valgrind

check-bare: packages-check  ## the two commands of the README on bare systems: make check-bare DEBIAN="12 13 testing" (as root)
	@provision/install-packages bare
	@provision/dev/bare $(DEBIAN)

fuzz: packages-check build  ## feed every parser and the servers with what nobody would write, SECONDS=120 long
	@provision/install-packages fuzz
	@$(BUILD) BUILD=build/sanitize SANITIZE="$(SANITIZE)" CFLAGS="-O1 -g"
	@test/fuzz/run $(SECONDS)

analyze: packages-check  ## static analysis: gcc -fanalyzer, clang-tidy, cppcheck
	@provision/install-packages analyze
	@test/analyze/run


##@ Help

.PHONY: help
help:  ## this list
	@awk -f provision/dev/help.awk $(MAKEFILE_LIST)
