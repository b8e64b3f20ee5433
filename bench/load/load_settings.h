/* SPDX-License-Identifier: PostgreSQL */

/*
 * Owns the command line: reads it into the settings, resolves the hosts.
 */

#ifndef LOAD_SETTINGS_H
#define LOAD_SETTINGS_H


#include "load.h"


/* Prints what is wrong and returns -1. */

int load_settings_read(load_settings_t *settings, int argc, char **argv);


#endif /* LOAD_SETTINGS_H */
