/* SPDX-License-Identifier: PostgreSQL */
/*
 * enqueue_check.c
 *	  Checking that a message is JSON that the server can store and return, and
 *	  that its topic is valid.
 *
 * The server's own parser decides.  No message raises an error here, so a bad
 * message does not affect its batch.
 *
 * - Strings are unescaped while parsing: \u0000 and a lone surrogate are
 *	 refused.  The type json accepts them, but most functions on it would fail.
 * - The parser raises an error when it runs out of stack.  It needs less than
 *	 1 kB a level, so a message with more levels than max_stack_depth has
 *	 kilobytes is refused before it is parsed.
 * - Before PostgreSQL 16 the parser raises an error for an escape such as
 *	 \u20ac that the database encoding does not have; in SQL_ASCII for all
 *	 non-ASCII characters.  The error is caught; the parser holds only memory.
 */
#include "postgres.h"

#include "tcop/tcopprot.h"
#include "utils/builtins.h"

#include "compat.h"
#include "enqueue.h"
#include "ngx_pgq.h"

/* The nesting depth; an upper bound if the text is not JSON. */
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

/* Parse.  Returns true if an escaped character cannot be converted. */
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
 * Check a message, a text.  If it is bad, sets sqlstate and problem, and
 * returns false.
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
	int			at;

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

/*
 * Is this text a topic, or empty?  The constraint queue_topic_check in
 * sql/queue.sql accepts the same texts.
 */
bool
ngx_pgq_enqueue_check_topic(Datum topic)
{
	static const char characters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
		"abcdefghijklmnopqrstuvwxyz0123456789._~-";
	text	   *value = DatumGetTextPP(topic);
	const char *name = VARDATA_ANY(value);
	int			length = VARSIZE_ANY_EXHDR(value);

	if (length == 0)
		return true;
	if (length > NGX_PGQ_TOPIC_LEN || name[0] == '_' || name[length - 1] == '/')
		return false;
	for (int i = 0; i < length; i++)
	{
		if (name[i] == '/' ? i == 0 || name[i - 1] == '/' :
			memchr(characters, name[i], sizeof(characters) - 1) == NULL)
			return false;
	}
	return true;
}
