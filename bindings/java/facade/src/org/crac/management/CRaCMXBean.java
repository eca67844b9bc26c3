package org.crac.management;

import java.lang.management.PlatformManagedObject;
import javax.management.ObjectName;

/** Times of the last restore: see {@link jdk.crac.management.CRaCMXBean}. */
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
     * The bean of this process.
     *
     * @return an object that asks it
     */
    static CRaCMXBean getCRaCMXBean() {
        jdk.crac.management.CRaCMXBean bean = jdk.crac.management.CRaCMXBean.getCRaCMXBean();
        return new CRaCMXBean() {
            @Override
            public long getUptimeSinceRestore() {
                return bean.getUptimeSinceRestore();
            }

            @Override
            public long getRestoreTime() {
                return bean.getRestoreTime();
            }

            @Override
            public ObjectName getObjectName() {
                return bean.getObjectName();
            }
        };
    }
}
