/* The program in C of the end-to-end tests of resource policies (tests/e2e/tests/policies.rs). It does what
 * crates/tubthumping-app/examples/left_open.rs does. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "orders.h"
#include "tub.h"

static const char *directory;

static const char *at(const char *name) {
    static char path[4096];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    return path;
}

static int opened(const char *name, int flags) {
    int number = open(at(name), flags, 0644);
    if (number < 0) {
        perror(name);
        exit(3);
    }
    return number;
}

static const char *why(void) {
    return errno == EBADF ? "EBADF" : strerror(errno);
}

/* What comes of reading: text, or why not. */
static void tell(const char *name, int number, size_t count) {
    char text[128];
    ssize_t length = read(number, text, count);
    if (length < 0)
        printf("%s %s\n", name, why());
    else
        printf("%s %.*s\n", name, (int)length, text);
}

static void before(void *data, tub_failures *failures) {
    (void)data, (void)failures;
    puts("before");
    fflush(stdout);
}

static void after(void *data, const tub_outcome *outcome, tub_failures *failures) {
    (void)data, (void)outcome, (void)failures;
    puts("after");
    fflush(stdout);
}

static void checkpoint(void) {
    tub_report *report = NULL;
    if (tub_checkpoint(&report) != TUB_FAILED)
        puts("checkpoint");
    for (size_t i = 0; i < tub_report_count(report); i++)
        printf("%s %s: %s\n",
               tub_report_has_image(report) ? "RestoreException" : "CheckpointException",
               tub_report_type(report, i), tub_report_message(report, i));
    tub_report_free(report);
}

static int connected(const struct sockaddr_in *address) {
    int number = socket(AF_INET, SOCK_STREAM, 0);
    return connect(number, (const struct sockaddr *)address, sizeof *address) == 0 ? number : -1;
}

int main(int count, char **words) {
    char order[4096];
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof address;
    if (count != 2)
        return 2;
    directory = words[1];
    signal(SIGPIPE, SIG_IGN);
    const char *failed = tub_start("C", false);
    if (failed) {
        fprintf(stderr, "%s\n", failed);
        return 1;
    }
    for (int i = 0; i < 2; i++) {
        int made = opened(i ? "closed.txt" : "input.txt", O_WRONLY | O_CREAT | O_TRUNC);
        if (write(made, "0123456789", 10) != 10)
            return 3;
        close(made);
    }
    int input = opened("input.txt", O_RDONLY);
    int closed = opened("closed.txt", O_RDONLY);
    int log = opened("app.log", O_WRONLY | O_APPEND | O_CREAT);
    int data = opened("data.bin", O_RDWR | O_CREAT | O_TRUNC);
    if (read(input, order, 3) != 3 || write(log, "before\n", 7) != 7 ||
        write(data, "01234567", 8) != 8)
        return 3;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int server = socket(AF_INET, SOCK_STREAM, 0);
    /* Without SO_REUSEADDR: that its connections are remembered for a while must not keep the port from copies. */
    if (bind(server, (struct sockaddr *)&address, sizeof address) || listen(server, 8) ||
        getsockname(server, (struct sockaddr *)&address, &size))
        return 3;
    int client = connected(&address);
    if (client < 0 || accept(server, NULL, NULL) < 0)
        return 3;
    tub_register("noted", before, after, NULL, NULL);
    puts("ready");
    fflush(stdout);
    for (;;) {
        next_order(directory, order, sizeof order);
        int looks = strncmp(order, "look", 4) == 0;
        if (strncmp(order, "checkpoint", 10) == 0)
            checkpoint();
        else if (strcmp(order, "end") == 0)
            return 0;
        if (looks || strncmp(order, "peek", 4) == 0) {
            tell("input", input, looks ? 100 : 1);
            tell("closed", closed, 1);
        }
        if (looks) {
            char end[1];
            printf("log %s\n", write(log, "after\n", 6) == 6 ? "ok" : why());
            off_t offset = lseek(data, 0, SEEK_CUR);
            if (offset < 0)
                printf("data %s\n", why());
            else
                printf("data %lld\n", (long long)offset);
            int there = connected(&address) >= 0 && accept(server, NULL, NULL) >= 0;
            printf("server %s\n", there ? "true" : "false");
            printf("client %s\n", read(client, end, 1) <= 0 ? "true" : "false");
        }
        printf("did %s\n", order);
        fflush(stdout);
    }
}
