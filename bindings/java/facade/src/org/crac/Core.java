package org.crac;

/**
 * The API by the name under which frameworks know it, for applications that come without a copy of their own.
 *
 * <p>In: calls of the application. Out: the same calls of {@link jdk.crac.Core}. Invariant: an application's own copy
 * is found before this one. Not here: anything that {@code jdk.crac} does.
 */
public class Core {
    /** As in the releases of the facade. */
    public Core() {}

    /**
     * The context that is told of every checkpoint; one order for it and for {@code jdk.crac}'s.
     *
     * @return the same object each time
     */
    public static Context<Resource> getGlobalContext() {
        return GlobalContext.INSTANCE;
    }

    /**
     * Asks for a checkpoint of this process and waits for it.
     *
     * @throws CheckpointException if there is no image
     * @throws RestoreException if there is one, but resources failed afterwards
     */
    public static void checkpointRestore() throws CheckpointException, RestoreException {
        try {
            jdk.crac.Core.checkpointRestore();
        } catch (jdk.crac.CheckpointException e) {
            throw GlobalContext.suppressedIn(e, new CheckpointException(e.getMessage()));
        } catch (jdk.crac.RestoreException e) {
            throw GlobalContext.suppressedIn(e, new RestoreException(e.getMessage()));
        }
    }
}
