package javax.crac;

import tubthumping.crac.JavaxContext;

/** Where an application asks for the global context, and for a checkpoint of itself. */
public class Core {
    private Core() {}

    /**
     * The context that is told of every checkpoint; one order for it and for {@code jdk.crac}'s.
     *
     * @return the same object each time
     */
    public static Context<Resource> getGlobalContext() {
        return JavaxContext.INSTANCE;
    }

    /**
     * Asks for a checkpoint of this process, as {@link jdk.crac.Core#checkpointRestore} does.
     *
     * @throws CheckpointException if there is no image; each reason is a suppressed exception
     * @throws RestoreException if there is one but resources failed afterwards; each reason is a
     *     suppressed exception
     */
    public static void checkpointRestore() throws CheckpointException, RestoreException {
        try {
            jdk.crac.Core.checkpointRestore();
        } catch (jdk.crac.CheckpointException e) {
            throw JavaxContext.suppressedIn(e, new CheckpointException());
        } catch (jdk.crac.RestoreException e) {
            throw JavaxContext.suppressedIn(e, new RestoreException());
        }
    }
}
