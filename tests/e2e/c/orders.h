/* What the programs in C of the end-to-end tests are told: each new file `go` in their directory is an order. */
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

/* Waits for the next order. */
static void next_order(const char *directory, char *order, size_t size) {
    static ino_t seen;
    char path[4096];
    struct stat found;
    snprintf(path, sizeof path, "%s/go", directory);
    while (stat(path, &found) != 0 || found.st_ino == seen)
        usleep(10 * 1000);
    seen = found.st_ino;
    FILE *go = fopen(path, "r");
    size_t length = go ? fread(order, 1, size - 1, go) : 0;
    order[length] = 0;
    if (go)
        fclose(go);
}
