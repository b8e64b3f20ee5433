# Builds the nginx module with the packaged source (nginx-dev), the extension by PGXS, and a private PostgreSQL
# installation that contains it. The Makefile calls it after it has installed the packages. All output is below BUILD;
# nothing is written into the sources or into /usr.
#
#   BUILD     where to (build)
#   CFLAGS    optimisation and debugging (-O2 -g)
#   SANITIZE  compiler and linker flags of an instrumented build (empty)

BUILD    := build
CFLAGS   := -O2 -g
SANITIZE :=
WARNINGS := -Wall -Wextra -Werror
HARDEN   := -fstack-protector-strong

# Variables of the command line are not passed on to nginx's configure or to other makefiles.
MAKEOVERRIDES :=
unexport CFLAGS CPPFLAGS LDFLAGS BUILD SANITIZE WARNINGS HARDEN

TOP       := $(CURDIR)
PG_CONFIG := $(shell provision/pg-config)
PG        := $(shell provision/pg-config --major)
NGINX_SRC := /usr/share/nginx/src

NGINX     := $(TOP)/$(BUILD)/nginx
EXTENSION := $(BUILD)/extension$(PG)

.PHONY: all module extension private load
.DELETE_ON_ERROR:

all: module private load $(BUILD)/plain_select.so $(if $(SANITIZE),$(BUILD)/asan_early.so)


# The module. It is configured again when its `config`, the packaged nginx or the flags change; the makefile that nginx's
# configure writes has the dependencies of its sources.

module: $(BUILD)/nginx/Makefile
	@$(MAKE) --no-print-directory -s -f $(NGINX)/Makefile -C $(NGINX_SRC) modules

$(BUILD)/nginx/Makefile: ngx_pgq_module/config $(NGINX_SRC)/conf_flags $(BUILD)/flags provision/build.mk
	@echo "configuring the module for $$(/usr/sbin/nginx -v 2>&1)"
	@mkdir -p $(NGINX)
	@cd $(NGINX_SRC) && bash -ec '. ./conf_flags; \
		./configure --with-cc-opt="$$1 -fPIC" --with-ld-opt="$$2" "$${NGX_CONF_FLAGS[@]}" \
			--add-dynamic-module="$$3" --builddir="$$4"' configure \
		"$(CFLAGS) $(WARNINGS) $(HARDEN) $(SANITIZE)" "-Wl,-z,relro -Wl,-z,now $(SANITIZE)" \
		$(TOP)/ngx_pgq_module $(NGINX) > $(NGINX).log || { tail -n 20 $(NGINX).log; exit 1; }


# The extension, built outside its source directory. PGXS has no header dependencies: a changed header recompiles all of
# it. PostgreSQL's headers are included as system headers, so that warnings concern only the extension.

EXTENSION_HEADERS := $(wildcard pg_extension/*.h)
EXTENSION_SOURCES := $(wildcard pg_extension/*.c) pg_extension/Makefile

extension: $(EXTENSION)/ngx_pgq.so

$(EXTENSION)/headers: $(EXTENSION_HEADERS) $(BUILD)/flags $(PG_CONFIG)
	@mkdir -p $(@D)
	@rm -f $(@D)/*.o
	@touch $@

$(EXTENSION)/ngx_pgq.so: $(EXTENSION)/headers $(EXTENSION_SOURCES)
	@$(MAKE) --no-print-directory -s -C $(@D) -f $(TOP)/pg_extension/Makefile \
		PG_CONFIG=$(PG_CONFIG) with_llvm=no VPATH=$(TOP)/pg_extension \
		COPT="$(CFLAGS) $(WARNINGS) -Wno-unused-parameter -isystem $$($(PG_CONFIG) --includedir-server) $(SANITIZE)"
	@touch $@

private: $(EXTENSION)/ngx_pgq.so
	@provision/dev/private-install $(PG_CONFIG) $(EXTENSION) $(BUILD)/pg$(PG)


# The load client, and the clients of bench/mover.

load: $(BUILD)/flags
	@$(MAKE) --no-print-directory -s -C bench BUILD=$(TOP)/$(BUILD)/bench PG_CONFIG=$(PG_CONFIG) \
		CFLAGS="$(CFLAGS) $(WARNINGS) $(HARDEN) $(SANITIZE)" LDFLAGS="$(SANITIZE)"


# Preloaded by the servers of an instrumented run.

$(BUILD)/asan_early.so: test/tools/asan_early.c
	@$(CC) -shared -fPIC -Wl,-z,initfirst -o $@ $<


# A library for tests whose server reads its clock from a file.

$(BUILD)/plain_select.so: test/tools/plain_select.c | $(BUILD)/flags
	@$(CC) -shared -fPIC -O1 $(WARNINGS) -o $@ $<


# A file that changes only when the flags or the packaged nginx do.

$(BUILD)/flags: FORCE
	@mkdir -p $(BUILD)
	@echo "$(CFLAGS) $(WARNINGS) $(HARDEN) $(SANITIZE) $$(dpkg-query -W -f '$${Version}' nginx-dev)" > $@.new
	@if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi

FORCE:
