/* Taking part in checkpoints (Tubthumping): what a program is told before and after.
 *
 * Written by cbindgen from bindings/c/src; `TUB_BLESS=1 cargo test -p tubthumping-c` writes it anew. */

#ifndef TUB_H
#define TUB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 The original goes on, and there is an image.
 */
#define TUB_RESUMED 1

/*
 This process is a copy.
 */
#define TUB_RESTORED 2

/*
 The original goes on, and there is no image.
 */
#define TUB_FAILED 3

/*
 Takes what failed in a hook. Valid during the call of the hook only.
 */
typedef struct tub_failures tub_failures;

/*
 What failed in a checkpoint, and how the process goes on.
 */
typedef struct tub_report tub_report;

/*
 A hook that is called before the image is taken, on a thread of the library's.
 */
typedef void (*tub_before)(void *data, struct tub_failures *failures);

/*
 How this process goes on after a checkpoint.
 */
typedef struct tub_outcome {
  /*
   TUB_RESUMED, TUB_RESTORED or TUB_FAILED.
   */
  int state;
  /*
   How many checkpoints lie behind the process; 0 where this one failed.
   */
  uint64_t generation;
  /*
   Where the image is; NULL unless TUB_RESUMED.
   */
  const char *image;
  /*
   32 hexadecimal digits that tell one copy from another; NULL unless TUB_RESTORED.
   */
  const char *instance;
  /*
   Random and secret, to seed generators with; zeros unless TUB_RESTORED.
   */
  uint8_t seed[32];
  /*
   When the restore command started, in milliseconds since 1970; 0 unless TUB_RESTORED.
   */
  uint64_t restore_unix_ms;
  /*
   The environment of the restore command, NAME=VALUE each, ended by NULL. Nothing of it has been
   applied: setenv(3) is for the program to call, at a time when nobody reads.
   */
  const char *const *environment;
  /*
   New arguments, ended by NULL.
   */
  const char *const *arguments;
} tub_outcome;

/*
 A hook that is called after it, in the original and in every copy. `outcome` is valid during the
 call.
 */
typedef void (*tub_after)(void *data,
                          const struct tub_outcome *outcome,
                          struct tub_failures *failures);

/*
 Called once with a resource's data, when it has been unregistered and no hook of it will be called any
 more; on any thread.
 */
typedef void (*tub_release)(void *data);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/*
 Takes part in checkpoints from now on: opens the control socket. `runtime` is what the engine is
 told about this program, for people. Returns NULL, or why it cannot take part: a text that stays
 valid. Calls after the first change nothing and return the same.

 # Safety
 `runtime` is a string that ends with NUL, or NULL.
 */
const char *tub_start(const char *runtime, bool own_pipes);

/*
 Registers a resource: it is told before each checkpoint in reverse order of registration, and
 after it in order. Each function may be NULL. Returns its id, by which it is unregistered; never 0.

 # Safety
 `name` is a string that ends with NUL. The hooks may be called with `data` on another thread until
 `release` is.
 */
uint64_t tub_register(const char *name,
                      tub_before before,
                      tub_after after,
                      void *data,
                      tub_release release);

/*
 Unregisters a resource. If a checkpoint is under way it is still told of that one. Returns whether
 it was registered.
 */
bool tub_unregister(uint64_t id);

/*
 Says in a hook that it failed: any name for the kind of the failure, and a message. May be said
 several times.

 # Safety
 `failures` is the argument of the hook that is running; both texts are strings that end with NUL,
 or NULL.
 */
void tub_fail(struct tub_failures *failures, const char *kind, const char *message);

/*
 Asks for a checkpoint of this process, and waits until it goes on. Returns TUB_RESUMED in the
 original, TUB_RESTORED in a copy, both only if all went well; TUB_FAILED otherwise. What failed, and
 how the process goes on, is in `*report`, which is to be freed with tub_report_free; `report` may be
 NULL.

 # Safety
 `report` is NULL, or may be written to.
 */
int tub_checkpoint(struct tub_report **report);

/*
 How many failures there are.

 # Safety
 `report` comes from tub_checkpoint and has not been freed.
 */
size_t tub_report_count(const struct tub_report *report);

/*
 Whether there is an image although something failed: resources failed afterwards, what other
 languages call RestoreException. Otherwise it is a CheckpointException.

 # Safety
 As for tub_report_count.
 */
bool tub_report_has_image(const struct tub_report *report);

/*
 How the process goes on, or NULL where something failed. Valid until the report is freed.

 # Safety
 As for tub_report_count.
 */
const struct tub_outcome *tub_report_outcome(const struct tub_report *report);

/*
 What kind of failure number `index` is: CheckpointOpenFileException,
 CheckpointOpenSocketException, CheckpointOpenResourceException, TimeoutException, or what the hook
 said. NULL where there is no such number. Valid until the report is freed.

 # Safety
 As for tub_report_count.
 */
const char *tub_report_type(const struct tub_report *report, size_t index);

/*
 The message of failure number `index`: of a descriptor its path or address. Otherwise as
 tub_report_type.

 # Safety
 As for tub_report_count.
 */
const char *tub_report_message(const struct tub_report *report, size_t index);

/*
 The resource that failure number `index` is of; NULL where it is of none.

 # Safety
 As for tub_report_count.
 */
const char *tub_report_resource(const struct tub_report *report, size_t index);

/*
 Frees a report; NULL is none.

 # Safety
 `report` comes from tub_checkpoint and is not used again.
 */
void tub_report_free(struct tub_report *report);

/*
 How many failures there are.

 # Safety
 `report` comes from tub_checkpoint and has not been freed.
 */
size_t tub_report_count(const struct tub_report *report);

/*
 Whether there is an image although something failed: resources failed afterwards, what other
 languages call RestoreException. Otherwise it is a CheckpointException.

 # Safety
 As for tub_report_count.
 */
bool tub_report_has_image(const struct tub_report *report);

/*
 How the process goes on, or NULL where something failed. Valid until the report is freed.

 # Safety
 As for tub_report_count.
 */
const struct tub_outcome *tub_report_outcome(const struct tub_report *report);

/*
 What kind of failure number `index` is: CheckpointOpenFileException,
 CheckpointOpenSocketException, CheckpointOpenResourceException, TimeoutException, or what the hook
 said. NULL where there is no such number. Valid until the report is freed.

 # Safety
 As for tub_report_count.
 */
const char *tub_report_type(const struct tub_report *report, size_t index);

/*
 The message of failure number `index`: of a descriptor its path or address. Otherwise as
 tub_report_type.

 # Safety
 As for tub_report_count.
 */
const char *tub_report_message(const struct tub_report *report, size_t index);

/*
 The resource that failure number `index` is of; NULL where it is of none.

 # Safety
 As for tub_report_count.
 */
const char *tub_report_resource(const struct tub_report *report, size_t index);

/*
 Frees a report; NULL is none.

 # Safety
 `report` comes from tub_checkpoint and is not used again.
 */
void tub_report_free(struct tub_report *report);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* TUB_H */
