/* SPDX-License-Identifier: PostgreSQL */

/*
 * The ring, written by one process and read by others at full speed; writers
 * that are killed or stopped at any moment.
 */

#include "ring_posts.h"
#include "ngx_pgq_ring_memory.h"

#include <signal.h>
#include <sys/wait.h>
#include <time.h>


#define READERS    3
#define TRIALS     100
#define POSTED     10000    /* posts that a writer has to reach */
#define REVISIONS  1000     /* revisions that a reader has to see */


static uint64_t
now_us(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);

    return (uint64_t) ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}


/* Runs for 1.5 s, and for up to 60 s until there is enough: an emulator is slow. */

static int
goes_on(uint64_t start, int enough)
{
    return now_us() - start < (enough ? 1500000 : 60000000);
}


static void
reader(void)
{
    int64_t               id, last, after;
    uint64_t              place, cursor, i;
    ngx_pgq_ring_state_t  state, previous;

    seed = getpid();
    cursor = 0;
    last = 0;

    ngx_pgq_ring_state(&ring, &previous);

    while (!__atomic_load_n(&found->stop, __ATOMIC_RELAXED)) {

        ngx_pgq_ring_state(&ring, &state);

        if (state.first < previous.first || state.end < previous.end
            || state.newest < previous.newest || state.since < previous.since
            || state.first > state.end || state.used > ring.size)
        {
            bad(__LINE__);
        }

        previous = state;

        if (state.first == state.end) {
            continue;
        }

        /* follows the newest posts */

        for (i = 0, cursor = ngx_max(cursor, state.first);
             i < 4 && cursor < state.end;
             i++, cursor++)
        {
            (void) check(cursor, &id);

            if (id && id <= last) {
                bad(__LINE__);
            }

            last = ngx_max(id, last);
        }

        (void) check(state.first + chance(state.end - state.first), &id);

        /* searches */

        after = state.since + chance(state.newest - state.since);
        place = ngx_pgq_ring_find(&ring, &state, after);

        if (place < state.first || place >= state.end) {
            bad(__LINE__);
        }

        if (check(place, &id) && id && id != after + 1) {
            bad(__LINE__);
        }
    }

    _exit(0);
}


/* Appends posts until it is killed, or is not the follower any more. */

static void
writer(void)
{
    int64_t               id;
    ngx_pgq_ring_state_t  state;

    ngx_pid = getpid();

    while (ngx_pgq_ring_take(&ring, 0) != NGX_OK) { /* void */ }

    ngx_pgq_ring_state(&ring, &state);

    for (id = state.newest + 1; append(id) == NGX_OK; id++) {
        if (__atomic_load_n(&found->stop, __ATOMIC_RELAXED)) {
            break;
        }
    }

    _exit(0);
}


static pid_t
start(void (*run)(void))
{
    pid_t  pid;

    pid = fork();

    if (pid == 0) {
        run();
    }

    return pid;
}


static void
start_readers(pid_t *readers)
{
    int  i;

    ngx_memzero(found, sizeof(found_t));

    for (i = 0; i < READERS; i++) {
        readers[i] = start(reader);
    }
}


static void
stop_readers(pid_t *readers, const char *what)
{
    int  i, status, good;

    __atomic_store_n(&found->stop, 1, __ATOMIC_RELAXED);

    for (good = 1, i = 0; i < READERS; i++) {
        good = waitpid(readers[i], &status, 0) == readers[i] && status == 0
               && good;
    }

    ok(good && found->bad == 0 && found->objects > 1000,
       "%s: each reader sees whole posts in order", what);

    if (found->bad) {
        printf("# %llu bad, the first at line %d\n",
               (unsigned long long) found->bad, found->why);
    }

    printf("# %llu objects checked, %llu overwritten while they were read\n",
           (unsigned long long) found->objects,
           (unsigned long long) found->overwritten);
}


static void
wait_for_post(int64_t newest)
{
    ngx_pgq_ring_state_t  state;

    do {
        ngx_pgq_ring_state(&ring, &state);
    } while (state.newest <= newest);
}


static void
test_speed(void)
{
    int                   status;
    pid_t                 pid, readers[READERS];
    uint64_t              begun;
    ngx_pgq_ring_state_t  state;

    new_ring(SIZE, POSTS);
    start_readers(readers);

    pid = start(writer);
    wait_for_post(0);

    begun = now_us();

    do {
        usleep(1000);
        ngx_pgq_ring_state(&ring, &state);
    } while (goes_on(begun, state.newest > POSTED && found->overwritten > 0));

    stop_readers(readers, "a writer at full speed");
    (void) waitpid(pid, &status, 0);

    ngx_pgq_ring_state(&ring, &state);
    ok(found->overwritten > 0 && state.newest > POSTED && whole(),
       "%lld posts were written", (long long) state.newest);
}


/* A writer is killed, and another one goes on. */

static void
test_kill(void)
{
    int                   i, status, good;
    pid_t                 pid, readers[READERS];
    int64_t               newest;
    ngx_pgq_ring_state_t  state;

    new_ring(SIZE, POSTS);
    start_readers(readers);

    for (good = 1, newest = 0, i = 0; i < TRIALS; i++) {
        pid = start(writer);
        wait_for_post(newest);
        usleep(chance(2000));

        (void) kill(pid, SIGKILL);
        (void) waitpid(pid, &status, 0);

        ngx_pgq_ring_state(&ring, &state);
        good = good && whole() && state.newest > newest;
        newest = state.newest;
    }

    ok(good, "a killed writer leaves a whole ring, and the next one goes on");
    stop_readers(readers, "writers are killed");
}


/* Whether the process ends by itself, and with success. */

static int
ends(pid_t pid)
{
    int  i, status;

    for (i = 0; i < 5000; i++) {
        if (waitpid(pid, &status, WNOHANG) == pid) {
            return status == 0;
        }

        usleep(1000);
    }

    (void) kill(pid, SIGKILL);
    (void) waitpid(pid, &status, 0);

    return 0;
}


/* A writer is stopped, another one takes over, and the first one continues. */

static void
test_stop(void)
{
    int                   i, status, good, taken, writing;
    pid_t                 pid, readers[READERS];
    int64_t               newest;
    ngx_pgq_ring_state_t  state;

    new_ring(SIZE, POSTS);
    start_readers(readers);
    taken = writing = 0;

    for (good = 1, newest = 0, i = 0; i < TRIALS; i++) {
        pid = start(writer);
        wait_for_post(newest);
        usleep(chance(2000));

        (void) kill(pid, SIGSTOP);
        (void) waitpid(pid, &status, WUNTRACED);

        good = good
               && ngx_pgq_ring_take(&ring, 2 * POLL) == NGX_DECLINED;

        if (ngx_pgq_ring_take(&ring, 2 * POLL + 1) == NGX_OK) {
            taken++;

            ngx_pgq_ring_state(&ring, &state);
            good = good && append(state.newest + 1) == NGX_OK && whole();

            (void) kill(pid, SIGCONT);

            good = good && ends(pid) && append(state.newest + 2) == NGX_OK && whole();

            ngx_pgq_ring_leave(&ring);

        } else {
            writing++;

            (void) kill(pid, SIGKILL);
            (void) waitpid(pid, &status, 0);
        }

        ngx_pgq_ring_state(&ring, &state);
        newest = state.newest;
    }

    ok(good && taken, "a silent writer loses the ring unless it is writing"
       " (taken %d, writing %d)", taken, writing);
    ok(writing > 0, "a writer that stopped in the middle of a post keeps it");
    stop_readers(readers, "writers are stopped");
}


static void
stranger(void)
{
    for ( ;; ) {
        (void) pause();
    }
}


/* The id of a process that was killed while it wrote is given to another. */

static void
test_stranger(void)
{
    int    status;
    pid_t  pid;

    new_ring(SIZE, POSTS);
    (void) ngx_pgq_ring_take(&ring, 0);
    (void) append(1);

    pid = start(stranger);
    (void) setpgid(pid, pid);

    ring.memory->owner = (uint64_t) pid * 2 | NGX_PGQ_RING_WRITING;

    ok(ngx_pgq_ring_take(&ring, 0) == NGX_OK && append(2) == NGX_OK && whole(),
       "the ring of a killed writer is taken though a process that is no"
       " worker has its id");

    (void) kill(pid, SIGKILL);
    (void) waitpid(pid, &status, 0);
}


/* Reads its posts again and again, each time under a greater revision. */

static void
resetter(void)
{
    int64_t  id, revision;

    ngx_pid = getpid();
    (void) ngx_pgq_ring_take(&ring, 0);

    for (revision = 1; !__atomic_load_n(&found->stop, __ATOMIC_RELAXED);
         revision++)
    {
        (void) ngx_pgq_ring_reset(&ring, revision);
        (void) ngx_pgq_ring_start(&ring, 1);

        for (id = 1; id <= 5; id++) {
            (void) append(id);
        }

        (void) ngx_pgq_ring_confirm(&ring, 5, 0, 1);
    }

    _exit(0);
}


static void
test_version(void)
{
    int                     status;
    pid_t                   pid;
    uint64_t                begun, changes;
    ngx_str_t               topic;
    ngx_pgq_ring_version_t  version, previous;

    static u_char           name[2048];

    new_ring(SIZE, POSTS);
    ngx_memzero(found, sizeof(found_t));

    /* zeros do not change the hash: it is that of t/5, but takes longer */

    ngx_memcpy(name + sizeof(name) - 3, "t/5", 3);
    topic.data = name;
    topic.len = sizeof(name);

    ngx_memzero(&previous, sizeof(previous));
    changes = 0;

    pid = start(resetter);
    begun = now_us();

    while (goes_on(begun, changes > REVISIONS)) {
        ngx_pgq_ring_version(&ring, &topic, &version);

        changes += version.revision != previous.revision;
        previous = version;

        /* the newest of all posts, while the ring is not complete, is 5, too */

        if (version.created == 0 && version.newest != 5) {
            bad(__LINE__);
        }
    }

    __atomic_store_n(&found->stop, 1, __ATOMIC_RELAXED);

    ok(waitpid(pid, &status, 0) == pid && status == 0 && found->bad == 0
       && changes > REVISIONS,
       "the version of a topic does not go back while the ring reads its posts"
       " again");
    printf("# %llu revisions, %llu bad\n", (unsigned long long) changes,
           (unsigned long long) found->bad);
}


int
main(void)
{
    posts_init();

    test_speed();
    test_version();
    test_kill();
    test_stop();
    test_stranger();

    return tap_done();
}
