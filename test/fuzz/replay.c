/* SPDX-License-Identifier: PostgreSQL */

/*
 * Replaces libFuzzer: calls a harness with each of the named files, or those
 * in NAME.inputs in the directory of this program NAME_replay, and prints TAP.
 * The file is named if it ends the program.
 */

#include "fuzz.h"

#include <glob.h>
#include <signal.h>
#include <unistd.h>


const char *__asan_default_options(void);
const char *__ubsan_default_options(void);


static const char  *replay_file;


const char *
__asan_default_options(void)
{
    return "abort_on_error=1";
}


const char *
__ubsan_default_options(void)
{
    return "print_stacktrace=1:abort_on_error=1";
}


static void
replay_aborted(int signo)
{
    ssize_t  n;

    n = write(STDERR_FILENO, replay_file, strlen(replay_file));
    n += write(STDERR_FILENO, ": this is the input\n", 20);
    _exit(n > 0 ? signo : 1);
}


static uint8_t *
replay_read(const char *name, size_t *len)
{
    FILE     *file;
    uint8_t  *data;

    static uint8_t  buffer[4 * 1024 * 1024];

    file = fopen(name, "rb");
    fuzz_check(file != NULL);

    *len = fread(buffer, 1, sizeof(buffer), file);
    data = fuzz_copy(buffer, *len);
    fclose(file);

    return data;
}


static void
replay_inputs(const char *program, glob_t *found)
{
    char         pattern[4096];
    const char  *end;

    end = strstr(program, "_replay");
    fuzz_check(end != NULL);

    snprintf(pattern, sizeof(pattern), "%.*s.inputs/*",
             (int) (end - program), program);
    fuzz_check(glob(pattern, 0, NULL, found) == 0);
}


int
main(int argc, char **argv)
{
    size_t       i, len, n;
    char       **files;
    glob_t       found;
    uint8_t     *data;
    const char  *name;

    signal(SIGABRT, replay_aborted);

    files = argv + 1;
    n = (size_t) argc - 1;

    if (n == 0) {
        replay_inputs(argv[0], &found);
        files = found.gl_pathv;
        n = found.gl_pathc;
    }

    for (i = 0; i < n; i++) {
        replay_file = files[i];

        data = replay_read(files[i], &len);
        (void) LLVMFuzzerTestOneInput(data, len);
        free(data);

        name = strrchr(files[i], '/');
        printf("ok %zu - the input %s is processed\n", i + 1,
               name ? name + 1 : files[i]);
        fflush(stdout);
    }

    printf("1..%zu\n", n);

    if (argc == 1) {
        globfree(&found);
    }

    return 0;
}
