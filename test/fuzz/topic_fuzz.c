/* SPDX-License-Identifier: PostgreSQL */

/*
 * Any lists of patterns and topics.  The first line of an input is a list, the
 * second another one, and each other line a topic.  The syntax and the matches
 * must be those that the regex functions of the C library find.
 */

#include "fuzz.h"
#include "ngx_pgq_topic.h"

#include <regex.h>


#define FIRST    "[A-Za-z0-9.~-][A-Za-z0-9._~-]*"
#define SEGMENT  "[A-Za-z0-9._~-]+"


static regex_t  topic_syntax;
static regex_t  pattern_syntax;


typedef struct {
    char                     *text;
    long                      n;
    ngx_pgq_topic_pattern_t   patterns[NGX_PGQ_TOPIC_PATTERNS];
    regex_t                   regex;
} list_t;


/* The next line as a string; bytes after a zero byte are skipped. */

static char *
line(fuzz_input_t *in)
{
    char           *text;
    size_t          len, got;
    const uint8_t  *p;

    for (len = 0; len < in->len && in->p[len] != '\n'; len++) { /* void */ }

    p = fuzz_bytes(in, len, &got);
    (void) fuzz_byte(in);

    text = malloc(got + 1);
    fuzz_check(text != NULL);

    memcpy(text, p, got);
    text[got] = '\0';

    return text;
}


/* Reads the list with strtok(). */

static long
count(const char *text)
{
    long   n;
    char  *copy, *word, *state;

    copy = strdup(text);
    fuzz_check(copy != NULL);

    n = 0;
    state = NULL;

    for (word = strtok_r(copy, " ,", &state);
         word;
         word = strtok_r(NULL, " ,", &state))
    {
        if (n == NGX_PGQ_TOPIC_PATTERNS || strlen(word) > NGX_PGQ_TOPIC_MAX
            || regexec(&pattern_syntax, word, 0, NULL, 0) != 0)
        {
            n = -1;
            break;
        }

        n++;
    }

    free(copy);

    return n;
}


static void
read_list(list_t *list, fuzz_input_t *in)
{
    char    *text, *end;
    size_t   size, len;
    u_char  *copy;

    text = line(in);
    len = strlen(text);
    copy = fuzz_copy(text, len);
    list->text = (char *) copy;
    list->n = ngx_pgq_topic_list(copy, len, list->patterns,
                                 NGX_PGQ_TOPIC_PATTERNS);

    fuzz_check(list->n == count(text));
    free(text);

    if (list->n <= 0) {
        return;
    }

    size = ngx_pgq_topic_regex_size(list->patterns, (size_t) list->n);
    text = malloc(size + 1);
    fuzz_check(text != NULL);

    end = (char *) ngx_pgq_topic_regex((u_char *) text, list->patterns,
                                       (size_t) list->n, NULL, 0);
    *end = '\0';

    fuzz_check(regcomp(&list->regex, text, REG_EXTENDED|REG_NOSUB) == 0);
    free(text);
}


static int
matches(list_t *list, const u_char *topic, size_t len)
{
    return list->n > 0
           && ngx_pgq_topic_matches(list->patterns, (size_t) list->n, topic,
                                    len);
}


static void
match_topic(list_t *list, const char *topic)
{
    int      found;
    size_t   len;
    u_char  *copy;

    len = strlen(topic);
    copy = calloc(1, len ? len : 1);
    fuzz_check(copy != NULL);
    memcpy(copy, topic, len);

    fuzz_check(ngx_pgq_topic_valid(copy, len)
               == (len <= NGX_PGQ_TOPIC_MAX
                   && regexec(&topic_syntax, topic, 0, NULL, 0) == 0));

    found = matches(list, copy, len);

    fuzz_check(found == (list->n > 0
                         && regexec(&list->regex, topic, 0, NULL, 0) == 0));
    free(copy);
}


/* The regular expression of two lists has those of each list in it. */

static void
join(list_t *list, list_t *other)
{
    size_t   size;
    u_char  *text, *end, *one, *p;

    size = ngx_pgq_topic_regex_size(list->patterns, (size_t) list->n)
           + ngx_pgq_topic_regex_size(other->patterns, (size_t) other->n);
    text = malloc(size);
    one = malloc(size);
    fuzz_check(text != NULL && one != NULL);

    end = ngx_pgq_topic_regex(text, list->patterns, (size_t) list->n,
                              other->patterns, (size_t) other->n);
    fuzz_check(end <= text + size && memcmp(text, "^(?=(", 5) == 0);

    p = ngx_pgq_topic_regex(one, other->patterns, (size_t) other->n, NULL, 0);
    fuzz_check(memcmp(text + 4, one + 1, (size_t) (p - one) - 1) == 0);
    size = 4 + (size_t) (p - one) - 1;
    fuzz_check(text[size] == ')');

    p = ngx_pgq_topic_regex(one, list->patterns, (size_t) list->n, NULL, 0);
    fuzz_check(end - text - (ptrdiff_t) size - 1 == p - one - 1);
    fuzz_check(memcmp(text + size + 1, one + 1, (size_t) (p - one) - 1) == 0);

    free(one);
    free(text);
}


int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
    char          *topic;
    list_t         list, other;
    fuzz_input_t   in = { p, len };

    static int  compiled;

    if (!compiled) {
        compiled = 1;
        fuzz_check(regcomp(&topic_syntax, "^" FIRST "(/" SEGMENT ")*$",
                           REG_EXTENDED|REG_NOSUB) == 0);
        fuzz_check(regcomp(&pattern_syntax, "^((" FIRST "|[*])(/(" SEGMENT
                           "|[*]))*(/[*][*])?|[*][*])$",
                           REG_EXTENDED|REG_NOSUB) == 0);
    }

    read_list(&list, &in);
    read_list(&other, &in);

    while (in.len) {
        topic = line(&in);
        match_topic(&list, topic);
        match_topic(&other, topic);
        free(topic);
    }

    if (list.n > 0 && other.n > 0) {
        join(&list, &other);
    }

    if (list.n > 0) {
        regfree(&list.regex);
    }

    if (other.n > 0) {
        regfree(&other.regex);
    }

    free(list.text);
    free(other.text);

    return 0;
}
