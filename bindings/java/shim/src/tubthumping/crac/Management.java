package tubthumping.crac;

import java.util.concurrent.TimeUnit;
import javax.management.MalformedObjectNameException;
import javax.management.ObjectName;
import jdk.crac.CheckpointException;
import jdk.crac.Core;
import jdk.crac.RestoreException;
import jdk.crac.management.CRaCMXBean;

/** The platform bean. Found by the JDK through {@link ManagementProvider}. */
final class Management implements CRaCMXBean {
    static final String NAME = "jdk.management:type=CRaC";

    @Override
    public long getUptimeSinceRestore() {
        RestoreTime restore = RestoreTime.last;
        return restore == null ? -1 : restore.uptimeMillis();
    }

    @Override
    public long getRestoreTime() {
        RestoreTime restore = RestoreTime.last;
        return restore == null ? -1 : restore.unixMillis;
    }

    @Override
    public void checkpointRestore() throws CheckpointException, RestoreException {
        Core.checkpointRestore();
    }

    @Override
    public ObjectName getObjectName() {
        try {
            return new ObjectName(NAME);
        } catch (MalformedObjectNameException e) {
            throw new AssertionError(NAME + " is a name", e);
        }
    }

    /** When this process was last restored. Apart, so that a restore does not load JMX. */
    static final class RestoreTime {
        static volatile RestoreTime last;

        private final long unixMillis;
        private final long nanosThen;
        private final long uptimeMillisThen;

        RestoreTime(long unixMillis) {
            this.unixMillis = unixMillis;
            nanosThen = System.nanoTime();
            uptimeMillisThen = Math.max(0, System.currentTimeMillis() - unixMillis);
        }

        long uptimeMillis() {
            return uptimeMillisThen + TimeUnit.NANOSECONDS.toMillis(System.nanoTime() - nanosThen);
        }
    }
}
