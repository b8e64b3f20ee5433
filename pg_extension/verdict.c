/* SPDX-License-Identifier: PostgreSQL */
/*
 * verdict.c
 *	  Is this message JSON that the server can keep and give back?
 *
 * Called by enqueue for each message.  The server's own parser decides, and it
 * says no without raising, so that one bad message does not hurt its batch.
 *
 * - Strings are unescaped while parsing: a \u0000 or a lone surrogate, which
 *	 the type json would let in and every later use would choke on, is refused.
 * - The parser raises when it runs out of stack.  It needs well under a
 *	 kilobyte for a level, so a message is refused that has more levels than
 *	 max_stack_depth has kilobytes, before the parser sees it.
 */
#include "postgres.h"

#include "tcop/tcopprot.h"
#include "utils/builtins.h"

#include "compat.h"
#include "ngx_pgq.h"

/* Levels of arrays and objects; an upper bound when it is not JSON. */
static int
nesting_depth(const char *json, int length)
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

/*
 * True if the message, a text, is good; otherwise says why, as SQLSTATE and
 * a text.  Allocates freely in the current memory context.
 */
bool
ngx_pgq_verdict(Datum message, const char **sqlstate, char **problem)
{
	text	   *value = DatumGetTextPP(message);
	char	   *json = VARDATA_ANY(value);
	int			length = VARSIZE_ANY_EXHDR(value);
	JsonLexContext *lexer;
	JsonParseErrorType error;
	int			at;				/* at the end there is no token */

	if (length > max_stack_depth &&
		nesting_depth(json, length) > max_stack_depth)
	{
		*sqlstate = "54001";
		*problem = psprintf("Message is nested more than %d levels deep.",
							max_stack_depth);
		return false;
	}

	lexer = ngx_pgq_json_lexer(json, length);
	error = pg_parse_json(lexer, &nullSemAction);
	if (error == JSON_SUCCESS)
		return true;

	*sqlstate = ngx_pgq_json_untranslatable(error) ? "22P05" : "22P02";
	at = lexer->token_start ? lexer->token_start - json : length;
	*problem = psprintf("byte %d: %s", at + 1,
						json_errdetail(error, lexer));
	return false;
}
