/* SPDX-License-Identifier: PostgreSQL */

/*
 * The consumers of bench/compare:
 *
 *     consumer_NAME CONSUMERS POSTS BATCH ARGUMENT...
 *
 * Consumer 1 reads the subscription or queue consume1, and so on.  For each one
 * there are POSTS posts {"n":1,...}, {"n":2,...} ....  Prints lines "result NAME
 * VALUE": rate is the posts a second of all consumers together, client_us the
 * CPU time of a post, p50_ms and so on are of a batch.  Exit status: 0 success,
 * 1 an error, 2 usage.
 */

#define _GNU_SOURCE

#include "consumer.h"
#include "load.h"
#include "load_hist.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>


#define CONSUMER_MAX  100


static void *consumer_thread(void *data);


static consumer_t       consumers[CONSUMER_MAX];
static uint64_t         consumer_posts;
static int              consumer_most;
static load_hist_t      consumer_hist;
static pthread_mutex_t  consumer_lock = PTHREAD_MUTEX_INITIALIZER;


int
main(int argc, char **argv)
{
    int             i, count, status;
    void           *failed;
    double          seconds, cpu;
    int64_t         start;
    pthread_t       threads[CONSUMER_MAX];
    struct rusage   usage;

    if (argc < 5 || (count = atoi(argv[1])) < 1 || count > CONSUMER_MAX
        || (consumer_posts = strtoul(argv[2], NULL, 10)) < 1
        || (consumer_most = atoi(argv[3])) < 1)
    {
        fprintf(stderr, "usage: %s CONSUMERS POSTS BATCH %s\n", argv[0],
                consumer_usage);
        return 2;
    }

    for (i = 0; i < count; i++) {
        consumers[i].number = (unsigned) i + 1;

        if (consumer_open(&consumers[i], argv + 4) != 0) {
            return 1;
        }
    }

    start = load_now();

    for (i = 0; i < count; i++) {
        if (pthread_create(&threads[i], NULL, consumer_thread, &consumers[i])
            != 0)
        {
            return 1;
        }
    }

    status = 0;

    for (i = 0; i < count; i++) {
        pthread_join(threads[i], &failed);
        status |= (failed != NULL);
    }

    seconds = (double) (load_now() - start) / LOAD_SECOND;
    getrusage(RUSAGE_SELF, &usage);
    cpu = (double) (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6
          + (double) (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);

    printf("result seconds %.3f\n", seconds);
    printf("result rate %.0f\n", (double) consumer_posts * count / seconds);
    printf("result client_us %.3f\n", cpu / (double) consumer_posts / count);
    load_hist_print(&consumer_hist, "");

    return status;
}


/* Returns NULL, or the consumer that has failed. */

static void *
consumer_thread(void *data)
{
    int64_t      start;
    consumer_t  *consumer = data;

    while (consumer->posts < consumer_posts) {
        start = load_now();

        if (consumer_batch(consumer, consumer_most) != 0) {
            return consumer;
        }

        pthread_mutex_lock(&consumer_lock);
        load_hist_add(&consumer_hist, load_now() - start);
        pthread_mutex_unlock(&consumer_lock);
    }

    if (consumer->sum != consumer_posts * (consumer_posts + 1) / 2) {
        consumer_fail(consumer, "not the posts that were expected");
        return consumer;
    }

    return (consumer_close(consumer) == 0) ? NULL : consumer;
}


void
consumer_post(consumer_t *consumer, const char *body)
{
    consumer->posts++;
    consumer->sum += strtoul(body + 5, NULL, 10);
}


int
consumer_fail(const consumer_t *consumer, const char *what)
{
    fprintf(stderr, "consumer %u, after %lu posts: %s\n", consumer->number,
            (unsigned long) consumer->posts, what);

    return -1;
}
