/* SPDX-License-Identifier: PostgreSQL */
/*
 * recent.c
 *	  C functions used by the SQL function recent().
 *
 * Their C names are those of the SQL functions, not of this file.
 *
 * - json_octets() is the length of data.  The data is not read: a value that
 *	 is stored out of line has its length in the TOAST pointer.
 * - json_utf8() is the data with each character that UTF-8 does not have
 *	 replaced by \ufffd, so that it can be sent to nginx.  Such characters
 *	 exist in databases with SQL_ASCII, which accept any bytes, and in
 *	 encodings with codes that have no conversion.  JSON outside strings is
 *	 ASCII, so they are in strings.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "catalog/namespace.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"

#include "compat.h"
#include "ngx_pgq.h"

/* An upper bound of the size of a converted character. */
#define CHARACTER_SIZE	(MAX_CONVERSION_GROWTH * MAX_MULTIBYTE_CHAR_LEN + 1)

PG_FUNCTION_INFO_V1(ngx_pgq_json_octets);
PG_FUNCTION_INFO_V1(ngx_pgq_json_utf8);

Datum
ngx_pgq_json_octets(PG_FUNCTION_ARGS)
{
	Size		size = toast_raw_datum_size(PG_GETARG_DATUM(0));

	PG_RETURN_INT32((int32) (size - VARHDRSZ));
}

/*
 * The length of the character at s, at most length bytes; negative if UTF-8
 * does not have it.  There is no conversion for SQL_ASCII.
 */
static int
recent_utf8_character(const char *s, int length, int encoding, Oid conversion)
{
	unsigned char result[CHARACTER_SIZE];
	int			n;

	if (!OidIsValid(conversion))
		return pg_encoding_verifymbchar(PG_UTF8, s, length);

	n = pg_encoding_verifymbchar(encoding, s, length);

	if (n > 0 &&
		pg_do_encoding_conversion_buf(conversion, encoding, PG_UTF8,
									  (unsigned char *) s, n,
									  result, sizeof(result), true) != n)
		return -1;
	return n;
}

Datum
ngx_pgq_json_utf8(PG_FUNCTION_ARGS)
{
	int			encoding = GetDatabaseEncoding();
	Oid			conversion = InvalidOid;
	text	   *data;
	char	   *start;
	int			length;
	StringInfoData result;

	if (encoding == PG_UTF8)
		PG_RETURN_DATUM(PG_GETARG_DATUM(0));

	if (encoding != PG_SQL_ASCII)
	{
		conversion = FindDefaultConversionProc(encoding, PG_UTF8);
		if (!OidIsValid(conversion))
			PG_RETURN_DATUM(PG_GETARG_DATUM(0));
	}

	data = PG_GETARG_TEXT_PP(0);
	start = VARDATA_ANY(data);
	length = VARSIZE_ANY_EXHDR(data);
	initStringInfo(&result);

	for (int i = 0; i < length;)
	{
		int			n = 1;

		if (IS_HIGHBIT_SET(start[i]))
			n = recent_utf8_character(start + i, length - i, encoding,
									  conversion);

		if (n > 0)
			appendBinaryStringInfo(&result, start + i, n);
		else
			appendStringInfoString(&result, "\\ufffd");
		i += Max(n, 1);
	}
	PG_RETURN_TEXT_P(cstring_to_text_with_len(result.data, result.len));
}
