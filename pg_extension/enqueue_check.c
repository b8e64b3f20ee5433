/* SPDX-License-Identifier: PostgreSQL */
/*
 * enqueue_check.c
 *	  Is this message JSON that the server can keep and give back?
 *
 * The server's own parser decides.  No message makes this file raise, so that
 * one bad message does not hurt its batch.
 *
 * - Strings are unescaped while parsing: a \u0000 or a lone surrogate, which
 *	 the type json would let in and every later use would choke on, is refused.
 * - The parser raises when it runs out of stack.  It needs well under a
 *	 kilobyte for a level, so a message is refused that has more levels than
 *	 max_stack_depth has kilobytes, before the parser sees it.
 * - Before PostgreSQL 16 the parser raises for an escape such as \u20ac that the
 *	 encoding of the database does not have, and in a database of SQL_ASCII for
 *	 each beyond ASCII.  The error is caught: the parser holds memory and nothing
 *	 else.
 */
#include "postgres.h"

#include "tcop/tcopprot.h"
#include "utils/builtins.h"

#include "compat.h"
#include "enqueue.h"
#include "ngx_pgq.h"

/* Levels of arrays and objects; an upper bound when it is not JSON. */
static int
enqueue_check_nesting_depth(const char *json, int length)
{
	int			depth = 0;
	int			deepest = 0;
	bool		in_string = false;

	for (int i = 0; i < length; i++)
	{
		switch (json[i])
		{
			case '"':
				in_string = !in_string;
				break;
			case '\\':
				i += in_string;
				break;
			case '[':
			case '{':
				if (!in_string && ++depth > deepest)
					deepest = depth;
				break;
			case ']':
			case '}':
				depth -= !in_string && depth > 0;
				break;
			default:
				break;
		}
	}
	return deepest;
}

/* Parse; true if an escape does not exist in the encoding of the database. */
static bool
enqueue_check_parse(JsonLexContext *lexer, JsonParseErrorType *result)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool untranslatable = false;

	PG_TRY();
	{
		*result = pg_parse_json(lexer, &nullSemAction);
		untranslatable = ngx_pgq_json_untranslatable(*result);
	}
	PG_CATCH();
	{
		int			code = geterrcode();

		if (code != ERRCODE_FEATURE_NOT_SUPPORTED &&
			ERRCODE_TO_CATEGORY(code) != ERRCODE_DATA_EXCEPTION)
			PG_RE_THROW();
		MemoryContextSwitchTo(context);
		FlushErrorState();
		*result = JSON_UNICODE_HIGH_ESCAPE;
		untranslatable = true;
	}
	PG_END_TRY();
	return untranslatable;
}

/*
 * True if the message, a text, is good; otherwise says why, as SQLSTATE and
 * a text.  Allocates freely in the current memory context.
 */
bool
ngx_pgq_enqueue_check(Datum message, const char **sqlstate, char **problem)
{
	text	   *value = DatumGetTextPP(message);
	char	   *json = VARDATA_ANY(value);
	int			length = VARSIZE_ANY_EXHDR(value);
	JsonLexContext *lexer;
	JsonParseErrorType error;
	bool		untranslatable;
	int			at;				/* at the end there is no token */

	if (length > max_stack_depth &&
		enqueue_check_nesting_depth(json, length) > max_stack_depth)
	{
		*sqlstate = "54001";
		*problem = psprintf("Message is nested more than %d levels deep.",
							max_stack_depth);
		return false;
	}

	lexer = ngx_pgq_json_lexer(json, length);
	untranslatable = enqueue_check_parse(lexer, &error);
	if (error == JSON_SUCCESS)
		return true;

	*sqlstate = untranslatable ? "22P05" : "22P02";
	at = lexer->token_start ? lexer->token_start - json : length;
	*problem = psprintf("byte %d: %s", at + 1,
						json_errdetail(error, lexer));
	return false;
}
