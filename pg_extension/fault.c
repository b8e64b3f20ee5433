/* SPDX-License-Identifier: PostgreSQL */
/*
 * fault.c
 *	  Fault points (see fault.h); empty in a normal build.
 *
 * Owns the setting "fault".  Counts are files in the data directory, so they
 * survive a restart of the server, and a test can see them.
 */
#include "postgres.h"

#include "fault.h"

#ifdef NGX_PGQ_FAULTS

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "miscadmin.h"
#include "postmaster/interrupt.h"
#include "storage/latch.h"
#include "utils/guc.h"

#include "compat.h"

#define SETTING_LEN		1024
#define CHECK_MS		10		/* time between checks of the setting */

static const char *const points[] = {NGX_PGQ_FAULT_POINTS};

static char *setting;

/* One item of the setting. */
typedef struct Fault
{
	char		point[64];
	char		action[16];
	int			count;			/* times that the point fails; 0: always */
} Fault;

static const char *const actions[] = {
	"error", "fatal", "panic", "kill", "wait", "force"
};

static bool
fault_is_among(const char *name, const char *const *names, size_t count)
{
	for (size_t i = 0; i < count; i++)
	{
		if (strcmp(names[i], name) == 0)
			return true;
	}
	return false;
}

/* Is the action a SQLSTATE?  Names of actions are lower-case. */
static bool
fault_is_sqlstate(const char *action)
{
	return strlen(action) == 5 &&
		strspn(action, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") == 5;
}

/* Read an item and advance to the next one; false at the end. */
static bool
fault_next(const char **text, Fault *fault)
{
	int			length = strcspn(*text, ",");

	if (length == 0)
		return false;
	fault->count = 0;
	fault->action[0] = '\0';
	(void) sscanf(*text, "%63[a-z-]:%15[a-zA-Z0-9]:%d",
				  fault->point, fault->action, &fault->count);
	*text += length;
	*text += strspn(*text, ", ");
	return true;
}

static bool
fault_check(char **newval, void **extra, GucSource source)
{
	const char *text = *newval;
	Fault		fault;

	if (strlen(text) >= SETTING_LEN)
		return false;
	while (fault_next(&text, &fault))
	{
		if (!fault_is_among(fault.point, points, lengthof(points)) ||
			(!fault_is_among(fault.action, actions, lengthof(actions)) &&
			 !fault_is_sqlstate(fault.action)))
		{
			GUC_check_errdetail("The fault point or action does not exist.");
			return false;
		}
	}
	return true;
}

void
ngx_pgq_fault_define(void)
{
	DefineCustomStringVariable(NGX_PGQ_FAULT_SETTING,
							   "Sets the points at which processes fail.",
							   NULL,
							   &setting,
							   "",
							   PGC_SUSET, GUC_NOT_IN_SAMPLE,
							   fault_check, NULL, NULL);
}

/* Is the count not used up?  Creates a file for this time. */
static bool
fault_count_down(Fault *fault)
{
	for (int i = 0; i < Max(fault->count, 1); i++)
	{
		char		path[MAXPGPATH];
		int			fd;

		snprintf(path, sizeof(path), "ngx_pgq.fault.%s.%d", fault->point, i);
		fd = open(path, O_CREAT | O_EXCL | O_WRONLY, 0600);
		if (fd >= 0)
		{
			close(fd);
			return true;
		}
	}
	return fault->count == 0;
}

/* Find the item for a point; false if there is none or it is used up. */
static bool
fault_find(const char *point, Fault *fault)
{
	const char *text = setting;

	if (text == NULL || *text == '\0')
		return false;
	if (!fault_is_among(point, points, lengthof(points)))
		elog(PANIC, "fault point %s is not in the table", point);
	while (fault_next(&text, fault))
	{
		if (strcmp(fault->point, point) == 0)
			return fault_count_down(fault);
	}
	return false;
}

static void
fault_wait_for_setting(void)
{
	char		before[SETTING_LEN];

	strlcpy(before, setting, sizeof(before));
	while (strcmp(before, setting) == 0)
	{
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 CHECK_MS, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
	}
}

void
ngx_pgq_fault(const char *point)
{
	Fault		fault;
	const char *action = fault.action;
	int			code = ERRCODE_INTERNAL_ERROR;

	if (!fault_find(point, &fault) || strcmp(action, "force") == 0)
		return;
	if (strcmp(action, "kill") == 0)
	{
		kill(MyProcPid, SIGKILL);
		for (;;)
			pause();
	}
	if (strcmp(action, "wait") == 0)
	{
		fault_wait_for_setting();
		return;
	}
	if (fault_is_sqlstate(action))
		code = MAKE_SQLSTATE(action[0], action[1], action[2], action[3],
							 action[4]);
	ereport(strcmp(action, "panic") == 0 ? PANIC :
			strcmp(action, "fatal") == 0 ? FATAL : ERROR,
			(errcode(code),
			 errmsg("fault at %s", point)));
}

bool
ngx_pgq_fault_forced(const char *point)
{
	Fault		fault;

	return fault_find(point, &fault) && strcmp(fault.action, "force") == 0;
}

#endif							/* NGX_PGQ_FAULTS */
