/* SPDX-License-Identifier: PostgreSQL */
/*
 * sqlstate.c
 *	  Classifying errors: is one caused by data, may its text quote a message?
 */
#include "postgres.h"

#include "ngx_pgq.h"

/*
 * Is an error certainly caused by the data of a message?  True for codes that
 * users' triggers define, and for the server's codes of data, constraints and
 * RAISE.
 */
bool
ngx_pgq_sqlstate_is_about_data(int sqlerrcode)
{
	static const char server[] = "00 01 02 03 08 09 0A 0B 0F 0L 0P 0Z 20 21 24 "
	"25 26 27 28 2B 2D 2F 34 38 39 3B 3D 3F 40 42 53 54 55 57 58 72 F0 HV XX";
	char		class[3] = {0};

	if (sqlerrcode == ERRCODE_SEQUENCE_GENERATOR_LIMIT_EXCEEDED)
		return false;
	if (sqlerrcode == ERRCODE_DATATYPE_MISMATCH)
		return true;
	memcpy(class, unpack_sql_state(sqlerrcode), 2);
	return strstr(server, class) == NULL;
}

/* Was an error raised in a function, and not by our own statement? */
bool
ngx_pgq_sqlstate_error_in_function(const ErrorData *error)
{
	return error->context && (strchr(error->context, '\n') ||
							  strncmp(error->context, "SQL statement ", 14) != 0);
}

/*
 * The text of an error if it cannot quote a message, else NULL.  It cannot if
 * the error is about the server itself and was not raised in a function.
 */
const char *
ngx_pgq_sqlstate_error_text(const ErrorData *error)
{
	static const char *const own = "08 25 40 53 55 57 58 XX";
	const char *sqlstate = unpack_sql_state(error->sqlerrcode);
	char		class[3] = {sqlstate[0], sqlstate[1], 0};

	if (ngx_pgq_sqlstate_error_in_function(error))
		return NULL;
	if (error->sqlerrcode != ERRCODE_INSUFFICIENT_PRIVILEGE &&
		strstr(own, class) == NULL)
		return NULL;
	return error->message;
}

/* The code of an error, and the name of its constraint if it has one. */
const char *
ngx_pgq_sqlstate_describe(const ErrorData *error)
{
	return psprintf("SQLSTATE %s%s%s", unpack_sql_state(error->sqlerrcode),
					error->constraint_name ? ", constraint " : "",
					error->constraint_name ? error->constraint_name : "");
}
