/* SPDX-License-Identifier: PostgreSQL */

/*
 * Owns the command line: reads it into the settings and resolves the hosts.
 */

#ifndef LOAD_SETTINGS_H
#define LOAD_SETTINGS_H


#include "load.h"


/* -1, with a message: an error. */

int load_settings_read(load_settings_t *settings, int argc, char **argv);


#endif /* LOAD_SETTINGS_H */
