/* SPDX-License-Identifier: PostgreSQL */

/*
 * Consumers by SQL: for each batch a call of fetch() and one of ack(), which
 * are transactions of their own.
 */

#include "consumer.h"

#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>


typedef struct {
    PGconn  *conn;
    char     name[32];
    char     most[12];
    char     generation[24];        /* empty: not known yet */
    char     upto[24];
} sql_link_t;


static PGresult *sql_call(consumer_t *consumer, const char *statement,
    int count, const char *const *values);


const char *consumer_usage = "CONNINFO";


int
consumer_open(consumer_t *consumer, char **argv)
{
    sql_link_t  *link;

    consumer->link = link = calloc(1, sizeof(sql_link_t));

    if (link == NULL) {
        return consumer_fail(consumer, "no memory");
    }

    link->conn = PQconnectdb(argv[0]);
    snprintf(link->name, sizeof(link->name), "consume%u", consumer->number);

    PQclear(PQprepare(link->conn, "fetch", "select * from ngx_pgq.fetch("
                      "$1, $2, part => 1, generation => $3)", 0, NULL));
    PQclear(PQprepare(link->conn, "ack", "select ngx_pgq.ack($1, $2, $3)",
                      0, NULL));

    return (PQstatus(link->conn) == CONNECTION_OK)
           ? 0 : consumer_fail(consumer, PQerrorMessage(link->conn));
}


int
consumer_batch(consumer_t *consumer, int most)
{
    int          i, count, data, status;
    PGresult    *result;
    sql_link_t  *link = consumer->link;

    snprintf(link->most, sizeof(link->most), "%d", most);

    result = sql_call(consumer, "fetch", 3, (const char *[]) { link->name,
                      link->most, link->generation[0] ? link->generation
                                                      : NULL });
    count = PQntuples(result);
    data = PQfnumber(result, "data");
    status = (count > 0) ? 0 : consumer_fail(consumer, "no posts");

    for (i = 0; i < count; i++) {
        consumer_post(consumer, PQgetvalue(result, i, data));
    }

    if (status == 0) {
        snprintf(link->upto, sizeof(link->upto), "%s",
                 PQgetvalue(result, count - 1, PQfnumber(result, "id")));
        snprintf(link->generation, sizeof(link->generation), "%s",
                 PQgetvalue(result, 0, PQfnumber(result, "generation")));
    }

    PQclear(result);

    if (status == 0) {
        result = sql_call(consumer, "ack", 3, (const char *[]) { link->name,
                          link->upto, link->generation });
        status = (result != NULL) ? 0 : -1;
        PQclear(result);
    }

    return status;
}


/* Returns NULL if the statement fails. */

static PGresult *
sql_call(consumer_t *consumer, const char *statement, int count,
    const char *const *values)
{
    PGresult    *result;
    sql_link_t  *link = consumer->link;

    result = PQexecPrepared(link->conn, statement, count, values, NULL, NULL,
                            0);

    if (PQresultStatus(result) == PGRES_TUPLES_OK) {
        return result;
    }

    consumer_fail(consumer, PQerrorMessage(link->conn));
    PQclear(result);

    return NULL;
}


int
consumer_close(consumer_t *consumer)
{
    sql_link_t  *link = consumer->link;

    PQfinish(link->conn);
    free(link);

    return 0;
}
