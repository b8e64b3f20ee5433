/* SPDX-License-Identifier: PostgreSQL */

/*
 * The reference parser of header fields: see header_oracle.h.
 *
 * A value is valid if the expression of the whole field matches.  Then its
 * parts are found one by one, by the expression of a part.
 */

#include "header_oracle.h"

#include <ctype.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>


#define OWS     "[ \t]*"
#define TOKEN   "[-!#$%&'*+.^_`|~0-9A-Za-z]+"
#define QUOTED  "\"([]\t !#-[^-~\x80-\xff]|\\\\[\t -~\x80-\xff])*\""
#define WORD    "(" TOKEN "|" QUOTED ")"

#define TYPE       "(" TOKEN "/" TOKEN ")"
#define PARAMETER  OWS ";" OWS "((" TOKEN ")=" WORD ")?"

#define PAIR       "(" TOKEN ")(" OWS "=" OWS WORD ")?"
#define PREFERENCE PAIR "(" OWS ";(" OWS PAIR ")?)*"

#define LIST(member)  "^" OWS "(" member ")?(" OWS "," OWS "(" member ")?)*"  \
                      OWS "$"
#define MEMBER(member)  "^[ \t,]*(" member ")"

/* a String or a bare word, and parameters without regard to their meaning */

#define STRING  "\"([] !#-[^-~]|\\\\[\"\\\\])*\""
#define BARE    "[]!#-+.-:<-[^-~-]+"
#define KEY     "(" STRING "|" BARE ")(" OWS ";" OWS TOKEN "(=(" STRING "|"  \
                BARE "))?)*"


typedef struct {
    const char  *text;
    regex_t      compiled;
    int          done;
} rule_t;


static rule_t  type_rule = { .text = "^" OWS TYPE "(" PARAMETER ")*" OWS "$" };
static rule_t  type_part = { .text = "^" OWS TYPE };
static rule_t  parameter_part = { .text = "^" PARAMETER };
static rule_t  codings_rule = { .text = LIST(TOKEN) };
static rule_t  coding_part = { .text = MEMBER(TOKEN) };
static rule_t  prefer_rule = { .text = LIST(PREFERENCE) };
static rule_t  preference_part = { .text = MEMBER(PREFERENCE) };
static rule_t  key_rule = { .text = "^" OWS KEY OWS "$" };
static rule_t  key_part = { .text = "^" OWS "(" STRING "|" BARE ")" };


static int
matches(rule_t *rule, const char *text, regmatch_t *match, size_t n)
{
    if (!rule->done) {
        if (regcomp(&rule->compiled, rule->text, REG_EXTENDED) != 0) {
            fprintf(stderr, "regcomp: %s\n", rule->text);
            abort();
        }

        rule->done = 1;
    }

    return regexec(&rule->compiled, text, n, match, 0) == 0;
}


/* Copies a value; -1 if it is too long or has a zero byte. */

static int
string(const char *value, size_t len, char text[HEADER_ORACLE_MAX])
{
    if (len >= HEADER_ORACLE_MAX || (len && memchr(value, '\0', len))) {
        return -1;
    }

    memcpy(text, len ? value : "", len);
    text[len] = '\0';

    return 0;
}


/* Copies a word without its quotes and backslashes. */

static void
meaning(const char *text, regmatch_t match, int lower,
    char out[HEADER_ORACLE_MAX])
{
    size_t  at, end, quoted;

    at = match.rm_so < 0 ? 0 : (size_t) match.rm_so;
    end = match.rm_so < 0 ? 0 : (size_t) match.rm_eo;
    quoted = end > at && text[at] == '"';

    for (at += quoted, end -= quoted; at < end; at++) {
        if (quoted && text[at] == '\\') {
            at++;
        }

        *out++ = (char) (lower && isupper((unsigned char) text[at])
                         ? text[at] | 0x20 : text[at]);
    }

    *out = '\0';
}


int
header_oracle_type(const char *value, size_t len,
    char name[HEADER_ORACLE_MAX], int *utf8)
{
    char        text[HEADER_ORACLE_MAX], word[HEADER_ORACLE_MAX];
    size_t      at;
    regmatch_t  match[4];

    if (string(value, len, text) != 0 || !matches(&type_rule, text, NULL, 0)) {
        return -1;
    }

    (void) matches(&type_part, text, match, 4);
    meaning(text, match[1], 1, name);
    at = (size_t) match[0].rm_eo;
    *utf8 = 1;

    while (matches(&parameter_part, text + at, match, 4)) {
        meaning(text + at, match[2], 1, word);

        if (strcmp(word, "charset") == 0) {
            meaning(text + at, match[3], 1, word);
            *utf8 &= strcmp(word, "utf-8") == 0 || strcmp(word, "utf8") == 0
                     || strcmp(word, "us-ascii") == 0;
        }

        at += (size_t) match[0].rm_eo;
    }

    return 0;
}


int
header_oracle_codings(const char *value, size_t len)
{
    int         n;
    char        text[HEADER_ORACLE_MAX], word[HEADER_ORACLE_MAX];
    size_t      at;
    regmatch_t  match[2];

    if (string(value, len, text) != 0
        || !matches(&codings_rule, text, NULL, 0))
    {
        return -1;
    }

    for (n = 0, at = 0; matches(&coding_part, text + at, match, 2);
         at += (size_t) match[0].rm_eo)
    {
        meaning(text + at, match[1], 1, word);
        n += strcmp(word, "identity") != 0;
    }

    return n;
}


int
header_oracle_prefer(const char *value, size_t len,
    char returns[HEADER_ORACLE_MAX])
{
    char        text[HEADER_ORACLE_MAX], word[HEADER_ORACLE_MAX];
    size_t      at;
    regmatch_t  match[5];

    if (string(value, len, text) != 0 || !matches(&prefer_rule, text, NULL, 0))
    {
        return -1;
    }

    for (at = 0; matches(&preference_part, text + at, match, 5);
         at += (size_t) match[0].rm_eo)
    {
        meaning(text + at, match[2], 1, word);

        if (strcmp(word, "return") == 0) {
            meaning(text + at, match[4], 1, returns);
            return 1;
        }
    }

    return 0;
}


long
header_oracle_key(const char *value, size_t len, char key[HEADER_ORACLE_MAX])
{
    char        text[HEADER_ORACLE_MAX];
    regmatch_t  match[2];

    if (string(value, len, text) != 0 || !matches(&key_rule, text, NULL, 0)) {
        return -1;
    }

    (void) matches(&key_part, text, match, 2);
    meaning(text, match[1], 0, key);

    return key[0] ? (long) strlen(key) : -1;
}
