/* The program in C of the end-to-end tests (tests/e2e/tests/languages.rs): three resources, and orders
 * from a file. It does what crates/tubthumping-app/examples/subject.rs does. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "orders.h"
#include "tub.h"

static void show(const tub_outcome *outcome) {
    switch (outcome->state) {
    case TUB_RESUMED:
        printf("resumed %llu\n", (unsigned long long)outcome->generation);
        break;
    case TUB_RESTORED: {
        const char *color = "";
        for (const char *const *pair = outcome->environment; *pair; pair++)
            if (strncmp(*pair, "COLOR=", 6) == 0)
                color = *pair + 6;
        printf("restored %llu [%s] [", (unsigned long long)outcome->generation, color);
        for (const char *const *word = outcome->arguments; *word; word++)
            printf("%s%s", word == outcome->arguments ? "" : ",", *word);
        puts("]");
        break;
    }
    default:
        puts("failed");
    }
    fflush(stdout);
}

static void before(void *data, tub_failures *failures) {
    const char *name = data;
    printf("before %s\n", name);
    fflush(stdout);
    if (strcmp(name, "bad") == 0 || strcmp(name, "worse") == 0) {
        char text[64];
        snprintf(text, sizeof text, "%s is tired", name);
        tub_fail(failures, "Tired", text);
    } else if (strcmp(name, "slow") == 0) {
        sleep(3);
    }
}

static void after(void *data, const tub_outcome *outcome, tub_failures *failures) {
    (void)failures;
    printf("after %s ", (const char *)data);
    show(outcome);
}

static void draw(void *data, const tub_outcome *outcome, tub_failures *failures) {
    (void)data, (void)failures;
    if (outcome->state == TUB_RESTORED) {
        printf("random %s-%02x%02x\n", outcome->instance, outcome->seed[0], outcome->seed[31]);
        fflush(stdout);
    }
}

static void checkpoint(void) {
    tub_report *report = NULL;
    if (tub_checkpoint(&report) != TUB_FAILED) {
        printf("checkpoint ");
        show(tub_report_outcome(report));
    }
    for (size_t i = 0; i < tub_report_count(report); i++) {
        const char *resource = tub_report_resource(report, i);
        printf("%s %s%s%s: %s\n",
               tub_report_has_image(report) ? "RestoreException" : "CheckpointException",
               resource ? resource : "", resource ? ": " : "", tub_report_type(report, i),
               tub_report_message(report, i));
    }
    tub_report_free(report);
}

int main(int count, char **words) {
    char order[4096];
    uint64_t added[3] = {0};
    static char *const names[3] = {"bad", "worse", "slow"};
    int file = -1, listener = -1;
    if (count != 2)
        return 2;
    const char *failed = tub_start("C", false);
    if (failed) {
        fprintf(stderr, "%s\n", failed);
        return 1;
    }
    tub_register("one", before, after, "one", NULL);
    tub_register("two", before, after, "two", NULL);
    tub_register("three", before, after, "three", NULL);
    tub_register("lucky", NULL, draw, NULL, NULL);
    puts("ready");
    fflush(stdout);
    for (;;) {
        next_order(words[1], order, sizeof order);
        if (strcmp(order, "checkpoint") == 0) {
            checkpoint();
        } else if (strncmp(order, "open ", 5) == 0) {
            file = open(order + 5, O_RDONLY);
        } else if (strcmp(order, "listen") == 0) {
            struct sockaddr_in address = {.sin_family = AF_INET};
            address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
            listener = socket(AF_INET, SOCK_STREAM, 0);
            if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 1))
                return 3;
        } else if (strcmp(order, "close") == 0) {
            close(file);
            close(listener);
        } else if (strcmp(order, "end") == 0) {
            return 0;
        }
        for (int i = 0; i < 3; i++) {
            char *word = strchr(order, ' ');
            if (!word || strcmp(word + 1, names[i]) != 0)
                continue;
            if (order[0] == 'r')
                added[i] = tub_register(names[i], before, after, names[i], NULL);
            else
                tub_unregister(added[i]);
        }
        printf("did %s\n", order);
        fflush(stdout);
    }
}
