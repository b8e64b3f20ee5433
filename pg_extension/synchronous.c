/* SPDX-License-Identifier: PostgreSQL */
/*
 * synchronous.c
 *	  Checking that a standby has confirmed a commit of enqueue or fence.
 *
 * Owns what the current transaction expects of its commit (called, expected).
 *
 * - The server silently releases a waiting commit when
 *	 synchronous_standby_names is emptied, and does not wait at all when a
 *	 setting changes between the call and the commit.  So the settings do not
 *	 show whether a commit is safe.  If no standby has confirmed its WAL
 *	 position, the commit ends with a WARNING.
 * - A transaction expects the strongest confirmation that its settings asked
 *	 for at any of its calls or at its commit; with ngx_pgq.synchronous on, at
 *	 least that a standby has flushed the commit.
 * - The check runs after the commit, where an error would be a PANIC: it
 *	 raises nothing above WARNING.
 * - A prepared transaction is not checked, as COMMIT PREPARED does not know
 *	 its contents.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "replication/syncrep.h"
#include "replication/walsender.h"
#include "replication/walsender_private.h"
#include "storage/lwlock.h"

#include "fault.h"
#include "ngx_pgq.h"

static bool called = false;		/* ngx_pgq_synchronous_expect() was called */
/* index of WalSndCtl->lsn; a larger one is a stronger confirmation */
static int	expected = SYNC_REP_NO_WAIT;

/* The confirmation that a commit with the current settings waits for. */
static int
synchronous_requested(void)
{
	if (!SyncRepRequested() ||
		SyncRepStandbyNames == NULL || *SyncRepStandbyNames == '\0')
		return SYNC_REP_NO_WAIT;
	switch (synchronous_commit)
	{
		case SYNCHRONOUS_COMMIT_REMOTE_WRITE:
			return SYNC_REP_WAIT_WRITE;
		case SYNCHRONOUS_COMMIT_REMOTE_FLUSH:
			return SYNC_REP_WAIT_FLUSH;
		case SYNCHRONOUS_COMMIT_REMOTE_APPLY:
			return SYNC_REP_WAIT_APPLY;
		default:
			return SYNC_REP_NO_WAIT;
	}
}

static bool
synchronous_is_confirmed(XLogRecPtr commit, int mode)
{
	bool		confirmed;

	LWLockAcquire(SyncRepLock, LW_SHARED);
	confirmed = WalSndCtl->lsn[mode] >= commit;
	LWLockRelease(SyncRepLock);
	return confirmed;
}

/* The transaction has committed, and its wait for a standby has ended. */
static void
synchronous_check_commit(void)
{
	int			mode = Max(expected, synchronous_requested());

	if (ngx_pgq_synchronous)
		mode = Max(mode, SYNC_REP_WAIT_FLUSH);
	if (mode == SYNC_REP_NO_WAIT ||
		synchronous_is_confirmed(XactLastCommitEnd, mode))
		return;
	ereport(WARNING,
			(errmsg("commit was not confirmed by a standby"),
			 errdetail("The transaction has already committed locally, but might not have been replicated to a standby.")));
}

static void
synchronous_at_transaction_end(XactEvent event, void *arg)
{
	if (!called)
		return;
	switch (event)
	{
		case XACT_EVENT_COMMIT:
			synchronous_check_commit();
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			break;
		default:
			return;
	}
	called = false;
	expected = SYNC_REP_NO_WAIT;
}

/*
 * Expect the confirmation that the settings ask for now.  Call before a
 * transaction writes messages or a fence.  Raises if ngx_pgq.synchronous is on
 * and the commit would not wait for a standby.  The client may try again, as
 * nothing has been written.
 */
void
ngx_pgq_synchronous_expect(void)
{
	static bool registered = false;
	int			mode = synchronous_requested();

	if (ngx_pgq_synchronous && mode < SYNC_REP_WAIT_FLUSH)
		ereport(ERROR,
				(errcode(ERRCODE_CANNOT_CONNECT_NOW),
				 errmsg("cannot enqueue without synchronous replication"),
				 errdetail("ngx_pgq.synchronous is on, and synchronous_standby_names is empty or synchronous_commit is less than on.")));
	if (!registered)
	{
		RegisterXactCallback(synchronous_at_transaction_end, NULL);
		registered = true;
	}
	called = true;
	expected = Max(expected, mode);
}
