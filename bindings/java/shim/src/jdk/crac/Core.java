package jdk.crac;

import tubthumping.crac.Coordinator;
import tubthumping.crac.GlobalContext;

/** Where an application asks for the global context, and for a checkpoint of itself. */
public class Core {
    private Core() {}

    /**
     * The context that is told of every checkpoint.
     *
     * @return the same object each time
     */
    public static Context<Resource> getGlobalContext() {
        return GlobalContext.INSTANCE;
    }

    /**
     * Asks for a checkpoint of this process and waits for it. Returns in each copy that gets up
     * from the image, and in the original where it was left running.
     *
     * @throws CheckpointException if there is no image; each reason is a suppressed exception
     * @throws RestoreException if there is one but resources failed afterwards; each reason is a
     *     suppressed exception
     */
    public static void checkpointRestore() throws CheckpointException, RestoreException {
        Coordinator.INSTANCE.request();
    }
}
