package jdk.crac.management;

import java.lang.management.ManagementFactory;
import java.lang.management.PlatformManagedObject;
import jdk.crac.CheckpointException;
import jdk.crac.RestoreException;

/** Times of the last restore, and checkpoints through JMX: {@code jdk.management:type=CRaC}. */
public interface CRaCMXBean extends PlatformManagedObject {
    /**
     * Milliseconds since the last restore was asked for.
     *
     * @return -1 in a process that was never restored
     */
    long getUptimeSinceRestore();

    /**
     * When the last restore was asked for, in milliseconds since 1970.
     *
     * @return -1 in a process that was never restored
     */
    long getRestoreTime();

    /**
     * As {@link jdk.crac.Core#checkpointRestore()}.
     *
     * @throws CheckpointException if there is no image
     * @throws RestoreException if there is one but resources failed afterwards
     */
    void checkpointRestore() throws CheckpointException, RestoreException;

    /**
     * The bean of this process.
     *
     * @return the same object each time
     */
    static CRaCMXBean getCRaCMXBean() {
        return ManagementFactory.getPlatformMXBean(CRaCMXBean.class);
    }
}
