package tubthumping.crac;

import java.util.TimeZone;

/**
 * The default time zone, which the JDK asks the system for once. Where nobody has set it, it
 * follows the environment of the restore.
 *
 * <p>JVM(since 17): the JDK leaves what it has found in {@code user.timezone}; same on 25.
 */
final class TimeZones {
    private static final String PROPERTY = "user.timezone";

    private final boolean isNamed;
    private final String variable = System.getenv("TZ");

    /** In the original. */
    TimeZones(String commandLine) {
        isNamed = commandLine.contains("-D" + PROPERTY + "=");
    }

    /** In a copy, once its environment is known and its properties are not. */
    void follow() {
        String now = System.getenv("TZ");
        String found = System.getProperty(PROPERTY);
        boolean isFound = found != null && TimeZone.getDefault().getID().equals(found);
        if (now != null && !now.equals(variable) && isFound && !isNamed) {
            System.clearProperty(PROPERTY);
            TimeZone.setDefault(null);
        }
    }
}
